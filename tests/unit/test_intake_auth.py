"""Signatures, timestamps, and the secrets behind them."""

import os
import stat
from pathlib import Path

import pytest

from exchange.intake.auth import check_signature, check_timestamp, hmac_verifier, sign, signed_payload
from exchange.intake.errors import ApiError
from exchange.intake.keys import (
    KeyFileError,
    KeyRing,
    Secret,
    UnsealError,
    load_key_file,
    new_api_key,
    new_secret,
)

# Published in Binance's documentation of signed requests.
SECRET = Secret(b"2b5eb11e18796d12d88f13dc27dbbd02c2cc51ff7059765ed9821957d82bb4d9")
WHOLE = (
    b"symbol=BTCUSDT&side=BUY&type=LIMIT&quantity=1&price=9000&timeInForce=GTC"
    b"&recvWindow=5000&timestamp=1591702613943"
)
WHOLE_SIGNATURE = "3c661234138461fcc7a7d8746c6558c9842d4e10870d2ecbedf7777cad694af9"
QUERY = b"symbol=BTCUSDT&side=BUY&type=LIMIT&timeInForce=GTC"
BODY = b"quantity=1&price=9000&recvWindow=5000&timestamp=1591702613943"
SPLIT_SIGNATURE = "30baaf0fab549bbeda7f5ef201898b34122da25fd23c646cac2c529aebe670a4"


def test_published_vectors() -> None:
    """The signatures that Binance publishes come out, in the query and split over query and body."""
    assert WHOLE_SIGNATURE == sign(SECRET, WHOLE)
    assert SPLIT_SIGNATURE == sign(SECRET, signed_payload(QUERY, BODY))


@pytest.mark.parametrize(
    ("query", "body"),
    [
        (WHOLE + b"&signature=x", b""),
        (b"", WHOLE + b"&signature=x"),
        (b"signature=x&" + WHOLE, b""),
        (b"signature=x", WHOLE),
        (WHOLE.replace(b"&side", b"&signature=x&side"), b""),
    ],
)
def test_the_signature_is_cut_out_wherever_it_stands(query: bytes, body: bytes) -> None:
    """What is signed is all the rest, in the order sent."""
    assert WHOLE == signed_payload(query, body)


def test_a_signature_over_decoded_values_is_taken() -> None:
    """Clients that sign before they encode are understood; upper-case digits too."""
    signature = sign(SECRET, b"newClientOrderId=a:b/c d&timestamp=1")
    check_signature(
        hmac_verifier(SECRET), b"newClientOrderId=a%3Ab%2Fc+d&timestamp=1", b"", signature.upper()
    )


@pytest.mark.parametrize("signature", ["0" * 64, WHOLE_SIGNATURE[:-1], "é", "x" * 10_000])
def test_a_wrong_signature_is_refused(signature: str) -> None:
    """Anything but the right digits is -1022."""
    with pytest.raises(ApiError) as caught:
        check_signature(hmac_verifier(SECRET), WHOLE, b"", signature)
    assert -1022 == caught.value.code


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({}, -1102),
        ({"timestamp": "now"}, -1102),
        ({"timestamp": "١"}, -1102),
        ({"timestamp": "1000000", "recvWindow": "x"}, -1130),
        ({"timestamp": "1000000", "recvWindow": "60001"}, -1131),
        ({"timestamp": "1001000"}, -1021),
        ({"timestamp": "994999"}, -1021),
        ({"timestamp": "940000", "recvWindow": "59999"}, -1021),
    ],
)
def test_a_request_out_of_time_is_refused(sent: dict[str, str], code: int) -> None:
    """At most a second ahead, and at most recvWindow late."""
    with pytest.raises(ApiError) as caught:
        check_timestamp(sent, 1_000_000)
    assert code == caught.value.code


@pytest.mark.parametrize(
    "sent",
    [
        {"timestamp": "1000999"},
        {"timestamp": "995000"},
        {"timestamp": "940000", "recvWindow": "60000"},
    ],
)
def test_a_request_in_time_passes(sent: dict[str, str]) -> None:
    """The borders belong to what is allowed."""
    check_timestamp(sent, 1_000_000)


def test_a_sealed_secret_opens_for_its_key_alone() -> None:
    """Another key or another key file does not open it, and it is not readable as stored."""
    ring = KeyRing(os.urandom(32))
    api_key, secret = new_api_key(), new_secret()
    sealed = ring.seal(api_key, secret)

    assert secret.reveal() == ring.unseal(api_key, sealed).reveal()
    assert secret.reveal() not in sealed
    with pytest.raises(UnsealError):
        ring.unseal(new_api_key(), sealed)
    with pytest.raises(UnsealError):
        KeyRing(os.urandom(32)).unseal(api_key, sealed)
    with pytest.raises(UnsealError):
        ring.unseal(new_api_key(), b"short")


def test_secrets_do_not_print() -> None:
    """Neither text form of a secret shows it; keys and secrets are 64 letters and digits."""
    secret = new_secret()
    assert "hidden" in f"{secret}"
    assert secret.reveal().decode() not in f"{secret!r}{secret}"
    assert 64 == len(new_api_key()) == len(secret.reveal())
    assert new_api_key().isalnum()


def test_the_key_file_is_made_once(tmp_path: Path) -> None:
    """Absent, it is created for the owner alone; there, it is read again."""
    path = tmp_path / "made" / "key"
    first = load_key_file(path)
    assert 32 == len(first)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert first == load_key_file(path)
    assert [path] == list(path.parent.iterdir())


def test_a_bad_key_file_is_refused(tmp_path: Path) -> None:
    """A file of another length, or one that others can read, is not used."""
    short = tmp_path / "short"
    short.write_bytes(b"short")
    short.chmod(0o600)
    with pytest.raises(KeyFileError, match="5 bytes"):
        load_key_file(short)
    shared = tmp_path / "shared"
    load_key_file(shared)
    shared.chmod(0o640)
    with pytest.raises(KeyFileError, match="owner alone"):
        load_key_file(shared)
