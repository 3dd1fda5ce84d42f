"""Signed requests: that they are fresh, and that nobody changed them.

What is signed is the query string and the body as sent, put together without anything between, with
`signature=…` cut out. Some clients sign their values before percent-encoding them; so a signature that does
not fit the raw bytes is tried over the decoded ones. That gives an eavesdropper no new request: moving
"&" and "=" into a value by encoding them makes a value that no parameter accepts.

The very same request may be sent again within its window, as at Binance: what must not happen twice carries
a client's own order id, and `recvWindow` is the caller's to choose.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote, unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from exchange.intake.errors import (
    BAD_PARAMETER,
    BAD_RECV_WINDOW,
    BAD_SIGNATURE,
    MANDATORY,
    TIMESTAMP_AHEAD,
    TIMESTAMP_OUTSIDE,
)
from exchange.intake.keys import Secret

RECV_WINDOW_DEFAULT_MS = 5_000
RECV_WINDOW_MAX_MS = 60_000
CLOCK_LEAD_MS = 1_000
SIGNATURE_CHARS_MAX = 200
AUTH_PARAMETERS = ("timestamp", "recvWindow", "signature")

_SIGNATURE = re.compile(rb"(^|&)signature=[^&]*")
_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)

# Of a payload and the signature that came with it: whether they fit.
Verify = Callable[[bytes, str], bool]


def signed_payload(query: bytes, body: bytes) -> bytes:
    """Return the bytes that a request's signature covers."""
    return _without_signature(query) + _without_signature(body)


def sign(secret: Secret, payload: bytes) -> str:
    """Return the HMAC-SHA256 of `payload` as lower-case hexadecimal digits."""
    return hmac.digest(secret.reveal(), payload, "sha256").hex()


def hmac_verifier(secret: Secret) -> Verify:
    """Return the check of HMAC-SHA256 signatures, hexadecimal in either case, in constant time."""

    def verify(payload: bytes, signature: str) -> bool:
        given = signature.lower().encode("utf-8", "replace")
        return hmac.compare_digest(sign(secret, payload).encode(), given)

    return verify


def ed25519_verifier(public_key: bytes) -> Verify:
    """Return the check of Ed25519 signatures, in base64. `public_key` has its 32 bytes.

    A "+" that nobody percent-encoded arrives as a blank, and is meant. python-binance percent-encodes over a
    socket too, where nobody decodes.
    """
    key = Ed25519PublicKey.from_public_bytes(public_key)

    def verify(payload: bytes, signature: str) -> bool:
        try:
            key.verify(base64.b64decode(unquote(signature).replace(" ", "+"), validate=True), payload)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    return verify


def check_timestamp(parameters: Mapping[str, str], now_ms: int) -> None:
    """Refuse a request from the future, or older than its own `recvWindow`.

    Raises:
        ApiError: -1102 without a timestamp, -1130 or -1131 for a bad recvWindow, -1021 out of time.
    """
    timestamp = parameters.get("timestamp", "")
    if not _WHOLE.fullmatch(timestamp):
        raise MANDATORY.error(name="timestamp")
    window = parameters.get("recvWindow", "")
    if window and not _WHOLE.fullmatch(window):
        raise BAD_PARAMETER.error(name="recvWindow")
    window_ms = int(window) if window else RECV_WINDOW_DEFAULT_MS
    if window_ms > RECV_WINDOW_MAX_MS:
        raise BAD_RECV_WINDOW.error()
    sent_ms = int(timestamp)
    if sent_ms >= now_ms + CLOCK_LEAD_MS:
        raise TIMESTAMP_AHEAD.error()
    if now_ms - sent_ms > window_ms:
        raise TIMESTAMP_OUTSIDE.error()


def check_signature(verify: Verify, query: bytes, body: bytes, signature: str) -> None:
    """Refuse a request whose signature does not fit.

    Raises:
        ApiError: -1102 without a signature, -1022 for a wrong one.
    """
    payload = signed_payload(query, body)
    check_payload(verify, signature, payload)


def check_payload(verify: Verify, signature: str, payload: bytes) -> None:
    """Refuse a signature that fits neither the payload nor what it is once percent-decoded.

    Raises:
        ApiError: -1102 without a signature, -1022 for a wrong one.
    """
    if not signature:
        raise MANDATORY.error(name="signature")
    if len(signature) > SIGNATURE_CHARS_MAX:
        raise BAD_SIGNATURE.error()
    if verify(payload, signature):
        return
    decoded = unquote_to_bytes(payload.replace(b"+", b" "))
    if decoded == payload or not verify(decoded, signature):
        raise BAD_SIGNATURE.error()


def _without_signature(part: bytes) -> bytes:
    if b"signature=" not in part:
        return part
    return _SIGNATURE.sub(b"", part).removeprefix(b"&")
