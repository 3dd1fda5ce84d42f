"""Parameters, the tables of errors and endpoints, and specifications as forms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.events import Rejected
from events.values import RejectCode, Side, TimeInForce
from exchange.aggregate.market import spec_problem
from exchange.intake.endpoints import ENDPOINTS, ROUTES
from exchange.intake.errors import BAD_SIDE, REFUSALS, ApiError, refusal
from exchange.intake.parameters import (
    Parameter,
    Reader,
    boolean,
    choice,
    decimal,
    parse_parameters,
    split_form,
    text,
    whole,
)
from exchange.intake.specs import DEFAULT_FORMS, DEFAULT_SPECS, MarketForm, SpecError, market_spec
from exchange.intake.trade.forms import OrderKind

NEW_ORDER = ROUTES["POST", "/fapi/v1/order"].parameters
QUERY_ORDER = ROUTES["GET", "/fapi/v1/order"].parameters


def test_forms_are_taken_apart() -> None:
    """Pairs are split and decoded; a name without a value has an empty one."""
    assert {"a": "1", "b": "x y&z", "c": ""} == split_form("a=1&&b=x+y%26z&c")


def test_a_repeated_parameter_is_refused() -> None:
    """It cannot be told which was meant."""
    with pytest.raises(ApiError, match="'a'") as caught:
        split_form("a=1&b=2&a=1")
    assert -1101 == caught.value.code


def test_an_order_is_parsed() -> None:
    """Enumerations become their members, the rest keeps its text until the market's scale is known."""
    values = parse_parameters(
        NEW_ORDER,
        split_form("symbol=BTCUSDT&side=SELL&type=LIMIT&timeInForce=GTX&quantity=1&price=2&reduceOnly=True"),
    )
    assert {
        "symbol": "BTCUSDT",
        "side": Side.SELL,
        "type": OrderKind.LIMIT,
        "timeInForce": TimeInForce.GTX,
        "quantity": "1",
        "price": "2",
        "reduceOnly": True,
    } == values


@pytest.mark.parametrize(
    ("form", "code", "named"),
    [
        ("side=BUY&type=LIMIT", -1102, "symbol"),
        ("symbol=&side=BUY&type=LIMIT", -1102, "symbol"),
        ("symbol=X&type=WRONG", -1102, "side"),
        ("symbol=X&side=HOLD&type=WRONG", -1117, "side"),
        ("symbol=X&side=BUY&type=WRONG", -1116, "orderType"),
        ("symbol=X&side=BUY&type=LIMIT&timeInForce=GTB", -1115, "timeInForce"),
        ("symbol=X&side=BUY&type=LIMIT&colour=1", -1104, "colour"),
        ("symbol=X&side=BUY&type=LIMIT&quantity=1e3", -1130, "quantity"),
        ("symbol=X&side=BUY&type=LIMIT&price=NaN", -1130, "price"),
        ("symbol=X&side=BUY&type=LIMIT&reduceOnly=maybe", -1130, "reduceOnly"),
        ("symbol=X&side=BUY&type=LIMIT&newClientOrderId=a%20b", -1100, "newClientOrderId"),
        ("symbol=X&side=BUY&type=LIMIT&newClientOrderId=" + "a" * 37, -4015, "Client order id"),
        ("symbol=X&side=BUY&type=LIMIT&selfTradePreventionMode=EXPIRE", -5039, "self trade"),
    ],
)
def test_bad_order_parameters_name_the_field(form: str, code: int, named: str) -> None:
    """Each fault has its code, in the order mandatory, malformed, enumerations, unread."""
    with pytest.raises(ApiError, match=named) as caught:
        parse_parameters(NEW_ORDER, split_form(form))
    assert code == caught.value.code


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_bad_client_order_id_is_named_as_it_was_sent(method: str) -> None:
    """Who asks for an order by its client id is told about that parameter."""
    parameters = ROUTES[method, "/fapi/v1/order"].parameters
    with pytest.raises(ApiError, match="'origClientOrderId'") as caught:
        parse_parameters(parameters, {"symbol": "X", "origClientOrderId": "a b"})
    assert -1100 == caught.value.code


@pytest.mark.parametrize("order_id", ["-1", "1.0", "9" * 19, "", "x"])
def test_an_order_id_is_a_whole_number(order_id: str) -> None:
    """Whatever could not be an id is refused before anyone looks for it."""
    with pytest.raises(ApiError, match="orderId") as caught:
        parse_parameters(QUERY_ORDER, {"symbol": "X", "orderId": order_id})
    assert -1130 == caught.value.code


def test_every_refusal_has_an_answer() -> None:
    """No code of the aggregate is without code, text and status, and every text can be filled in."""
    assert set(RejectCode) == set(REFUSALS)
    for code in RejectCode:
        error = refusal(
            Rejected(account_id=2, code=code, reason="field: why {}"), leverage=7, min_notional="50"
        )
        assert error.code < 0
        assert (503 if code is RejectCode.FRAME_LIMIT else 400) == error.status
        assert error.text


@pytest.mark.parametrize(
    ("code", "number", "text"),
    [
        (RejectCode.UNKNOWN_ORDER, -2011, "Unknown order sent."),
        (RejectCode.INSUFFICIENT_MARGIN, -2019, "Margin is insufficient."),
        (RejectCode.MODE_UNCHANGED, -4046, "No need to change margin type."),
        (RejectCode.BAD_LEVERAGE, -4028, "Leverage 7 is not valid"),
        (RejectCode.DUPLICATE_CLIENT_ORDER_ID, -4116, "ClientOrderId is duplicated."),
    ],
)
def test_texts_that_clients_know(code: RejectCode, number: int, text: str) -> None:
    """What clients match is exact."""
    error = refusal(Rejected(account_id=2, code=code, reason=""), leverage=7, min_notional="50")
    assert (number, text) == (error.code, error.text)


def test_the_endpoint_table_is_sound() -> None:
    """No call stands twice, and no parameter twice in a call."""
    assert len(ENDPOINTS) == len(ROUTES)
    for row in ENDPOINTS:
        names = [parameter.name for parameter in row.parameters]
        assert len(names) == len(set(names)), row.path


def test_default_contracts_keep_the_rules() -> None:
    """The two contracts are valid, with ten brackets from 125 down to 1."""
    assert ["BTCUSDT", "ETHUSDT"] == [spec.symbol for spec in DEFAULT_SPECS]
    for spec in DEFAULT_SPECS:
        assert spec_problem(spec) is None
        assert (10, 125, 1) == (
            len(spec.brackets),
            spec.brackets[0].max_leverage,
            spec.brackets[-1].max_leverage,
        )
        assert 50_000 == spec.taker_fee
        # Funding every 8 hours: 0.01 % interest, at most 0.3 %, measured with 25,000 USDT. Prices set by hand
        # never grow stale.
        assert (28_800, 10_000, 300_000) == (spec.funding_interval_s, spec.interest_rate, spec.funding_cap)
        assert (25_000 * 10**8, 0, 0) == (spec.impact_notional, spec.index_age_ms_max, spec.source_age_ms_max)


def test_the_documented_example_is_a_specification_with_every_field() -> None:
    """docs/market.md."""
    text = (Path(__file__).parents[2] / "docs" / "market.md").read_text()
    example = text.partition("```json\n")[2].partition("```")[0]

    form = msgspec.json.decode(example, type=MarketForm)

    assert "SOLUSDT" == market_spec(form).symbol
    assert set(msgspec.json.decode(example)) == set(MarketForm.__struct_fields__)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("tick_size", "0", "tick_size"),
        ("tick_size", "a", "tick_size"),
        ("min_price", "100.05", "min_price"),
        ("maker_fee", "0.000000001", "maker_fee"),
        ("taker_fee", "2", "taker_fee"),
        ("mark_band", "0.5", "mark_band"),
        ("interest_rate", "0.0031", "interest_rate"),
        ("funding_cap", "1%", "funding_cap"),
        ("impact_notional", "-1", "impact_notional"),
        ("source_band", "", "source_band"),
        ("brackets", [], "brackets"),
        ("max_open_interest", "0", "^max_open_interest: must be at least min_quantity"),
        ("max_price", "1", "^min_price: must be in 1…max_price"),
    ],
)
def test_a_bad_specification_names_the_field(field: str, value: object, named: str) -> None:
    """A decimal of the wrong scale and a broken rule are both told by field."""
    form = msgspec.structs.replace(DEFAULT_FORMS[0], **{field: value})
    with pytest.raises(SpecError, match=named):
        market_spec(form)


@given(
    st.dictionaries(
        st.sampled_from(["symbol", "side", "limit", "flag", "other", "price"]),
        st.sampled_from(["", "BTCUSDT", "BUY", "buy", "5", "-1", "1e5", "true", "x" * 50, "STOP"]),
    )
)
def test_reading_by_what_was_sent_is_reading_by_what_is_declared(sent: dict[str, str]) -> None:
    """The quick way gives the same values, and the same first fault."""
    declared = (
        Parameter("symbol", text, required=True),
        Parameter("limit", whole),
        Parameter("price", decimal),
        Parameter("flag", boolean),
        choice("side", {"BUY": 1, "STOP": BAD_SIDE}, fault=BAD_SIDE),
    )

    def outcome(read: Callable[[], dict[str, Any]]) -> object:
        try:
            return read()
        except ApiError as error:
            return error.code, error.text

    assert outcome(lambda: parse_parameters(declared, sent)) == outcome(lambda: Reader(declared).read(sent))
