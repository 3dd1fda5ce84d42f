"""Signed requests: whose they are, that they are fresh, and that nobody changed them.

What is signed is the query string and the body as sent, put together without anything between, with
`signature=…` cut out. Some clients sign their values before percent-encoding them; so a signature that does
not fit the raw bytes is tried over the decoded ones. That gives an eavesdropper no new request: moving
"&" and "=" into a value by encoding them makes a value that no parameter accepts.
"""

import hmac
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

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
API_KEY = re.compile(r"[A-Za-z0-9]{64}", re.ASCII)
AUTH_PARAMETERS = ("timestamp", "recvWindow", "signature")

_SIGNATURE = re.compile(rb"(^|&)signature=[^&]*")
_WHOLE = re.compile(r"[0-9]{1,18}", re.ASCII)


def signed_payload(query: bytes, body: bytes) -> bytes:
    """Return the bytes that a request's signature covers."""
    return _without_signature(query) + _without_signature(body)


def sign(secret: Secret, payload: bytes) -> str:
    """Return the HMAC-SHA256 of `payload` as lower-case hexadecimal digits."""
    return hmac.digest(secret.reveal(), payload, "sha256").hex()


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


def check_signature(secret: Secret, query: bytes, body: bytes, signature: str) -> None:
    """Refuse a request whose signature does not fit.

    Raises:
        ApiError: -1102 without a signature, -1022 for a wrong one.
    """
    if not signature:
        raise MANDATORY.error(name="signature")
    given = signature.lower().encode("utf-8", "replace")
    payload = signed_payload(query, body)
    if hmac.compare_digest(sign(secret, payload).encode(), given):
        return
    decoded = unquote_to_bytes(payload.replace(b"+", b" "))
    if not hmac.compare_digest(sign(secret, decoded).encode(), given):
        raise BAD_SIGNATURE.error()


def _without_signature(part: bytes) -> bytes:
    if b"signature=" not in part:
        return part
    return _SIGNATURE.sub(b"", part).removeprefix(b"&")
