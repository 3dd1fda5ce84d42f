"""API keys and their secrets.

An HMAC secret must be known to check a signature, so it is in the log; sealed with AES-GCM under a key that
is not: 32 random bytes in a file of the intakes. Whoever has the log alone can prove every balance and sign
nothing. Unsealed secrets stay in memory, behind a type that does not print itself. Of an Ed25519 key only
the public half is known here, and that is no secret.
"""

import base64
import os
import secrets
import string
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from exchange.aggregate.administration import ED25519_BYTES

KEY_CHARS = 64
SEALING_KEY_BYTES = 32
NONCE_BYTES = 12
_ALPHABET = string.ascii_letters + string.digits


class KeyFileError(Exception):
    """The key file cannot be used; the message says what is wrong with it."""


class UnsealError(Exception):
    """A sealed secret does not open: it was sealed under another key file, or damaged."""


class Secret:
    """An HMAC secret. Its text comes out by `reveal` alone, never by printing or logging it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"


def new_api_key() -> str:
    """Return a random API key: 64 letters and digits."""
    return _random_text()


def new_secret() -> Secret:
    """Return a random secret: 64 letters and digits."""
    return Secret(_random_text().encode())


def read_public_key(text: str) -> bytes:
    """Return the 32 bytes of an Ed25519 public key, given in PEM or as base64.

    Raises:
        ValueError: it is none.
    """
    if "-----BEGIN" in text:
        key = load_pem_public_key(text.encode())
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("a public key, but not Ed25519")
        return key.public_bytes_raw()
    raw = base64.b64decode(text, validate=True)
    if len(raw) != ED25519_BYTES:
        raise ValueError(f"{len(raw)} bytes, must be {ED25519_BYTES}")
    return raw


class KeyRing:
    """Seals secrets and opens them again."""

    def __init__(self, sealing_key: bytes) -> None:
        assert len(sealing_key) == SEALING_KEY_BYTES, len(sealing_key)
        self._cipher = AESGCM(sealing_key)

    def seal(self, api_key: str, secret: Secret) -> bytes:
        """Return the secret encrypted and bound to its API key."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.reveal(), api_key.encode())

    def unseal(self, api_key: str, sealed: bytes) -> Secret:
        """Return the secret of a key.

        Raises:
            UnsealError: it was not sealed for this key under this key file.
        """
        try:
            value = self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], api_key.encode())
        except (InvalidTag, ValueError):
            raise UnsealError("the secret was sealed under another key file") from None
        return Secret(value)


def load_key_file(path: Path) -> bytes:
    """Return the sealing key in `path`, creating the file (mode 0600) when it is absent.

    Several intakes may start at once: the file appears complete or not at all, and the first one wins.

    Raises:
        KeyFileError: it cannot be read or written, has another length, or others may read it.
    """
    try:
        if not path.exists():
            _create(path)
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path}: must be readable by its owner alone (chmod 600)")
        sealing_key = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    if len(sealing_key) != SEALING_KEY_BYTES:
        raise KeyFileError(f"{path}: holds {len(sealing_key)} bytes, must be {SEALING_KEY_BYTES}")
    return sealing_key


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SEALING_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace another intake's key.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()


def _random_text() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(KEY_CHARS))
