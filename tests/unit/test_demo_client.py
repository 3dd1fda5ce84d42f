"""The client signs as the exchange checks, against the exchange's own code."""

from decimal import Decimal
from urllib.parse import parse_qs

from exchange.client import Contract, Credentials, signed_query
from exchange.intake.auth import check_signature, hmac_verifier
from exchange.intake.keys import Secret

CONTRACT = Contract(
    symbol="ETHUSDT",
    tick=Decimal("0.01"),
    step=Decimal("0.001"),
    max_quantity=Decimal(100),
    min_notional=Decimal(20),
)


def test_signature_is_the_one_the_intake_checks() -> None:
    """What the client signs, characters to be encoded included, passes the intake's check."""
    query = signed_query(b"secret", {"symbol": "ETHUSDT", "newClientOrderId": "a/b:c d"}, 1_700_000_000_000)

    parameters = parse_qs(query)
    check_signature(hmac_verifier(Secret(b"secret")), query.encode(), b"", parameters["signature"][0])
    assert ["1700000000000"] == parameters["timestamp"]


def test_secret_does_not_print_itself() -> None:
    """Credentials in a log line or a traceback do not give the secret away."""
    credentials = Credentials(account_id=2, api_key="key", secret="hush")

    assert "hush" not in repr(credentials)


def test_quantity_is_rounded_down_to_the_step() -> None:
    """100 of value at 3000 is 0.033 and not more."""
    assert "0.033" == CONTRACT.quantity_text(Decimal(100), Decimal(3_000))


def test_quantity_below_the_least_worth_is_none() -> None:
    """Nothing is asked for that the exchange would refuse for being worth too little."""
    assert CONTRACT.quantity_text(Decimal("20.5"), Decimal(3_000)) is None


def test_quantity_stays_below_the_largest() -> None:
    """A wish beyond the contract's largest order becomes that order."""
    assert "100" == CONTRACT.quantity_text(Decimal(10**9), Decimal(3_000))
