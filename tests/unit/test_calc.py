"""The margin calculator: what it says of an account, what it refuses to read, and what-if."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import msgspec
import pytest

from exchange.aggregate.liquidation_price import (
    liquidation_price,
    liquidation_price_of,
    price_amount,
    shared_liquidation_price,
)
from exchange.calc.account_file import Scenario, read_scenario
from exchange.calc.report import margin_report
from exchange.calc.shapes import AccountFileError
from exchange.calc.what_if import read_steps, try_steps

File = dict[str, Any]


def account(**changes: Any) -> File:
    """An account with 1,000 that bought 0.1 BTC at 50,000, twenty times, where the mark is."""
    return {
        "markets": {
            "BTCUSDT": {
                "mark": "50000",
                "tick_size": "0.1",
                "lot_size": "0.001",
                "taker_fee": "0.0005",
                "brackets": [
                    {"cap": "50000", "maintenance_margin_rate": "0.004", "max_leverage": 125},
                    {"cap": "10000000", "maintenance_margin_rate": "0.01", "max_leverage": "50"},
                ],
            }
        },
        "wallet": "1000",
        "positions": [position("0.1", "50000")],
        **changes,
    }


def position(size: str, entry: str, **more: Any) -> File:
    """A cross position in BTCUSDT, unless it has a bucket."""
    mode = "isolated" if "bucket" in more else "cross"
    return {
        "market": "BTCUSDT",
        "size": size,
        "entry_price": entry,
        "margin_mode": mode,
        "leverage": 20,
        **more,
    }


def order(side: str, size: str, price: str, **more: Any) -> File:
    """An order in BTCUSDT."""
    return {"market": "BTCUSDT", "side": side, "size": size, "price": price, **more}


def hedge(long: File, short: File, **changes: Any) -> File:
    """An account with two legs."""
    return account(
        position_mode="hedge", positions=[long | {"leg": "LONG"}, short | {"leg": "SHORT"}], **changes
    )


def read(file: File) -> Scenario:
    """Read a file."""
    return read_scenario(msgspec.json.encode(file))


def report(file: File) -> File:
    """Say what a file comes to."""
    return margin_report(read(file))


def tried(file: File, *steps: File) -> list[File]:
    """Take steps."""
    scenario = read(file | {"what_if": list(steps)})
    return try_steps(scenario, read_steps(scenario))


def test_a_cross_position() -> None:
    """5,000 at 20× takes 250 of 1,000; it dies at (5,000 − 1,000) / (0.1 × 0.996), and is gone at 40,000."""
    expected = {
        "equity": "1000.00000000",
        "initial_margin": "250.00000000",
        "maintenance_margin": "20.00000000",
        "margin_ratio": "0.02000000",
        "available": "750.00000000",
        "withdrawable": "750.00000000",
        "positions": [
            {
                "market": "BTCUSDT",
                "leg": "BOTH",
                "notional": "5000.00000000",
                "bracket": 0,
                "unrealized_pnl": "0.00000000",
                "initial_margin": "250.00000000",
                "maintenance_margin": "20.00000000",
                "margin_ratio": "0.02000000",
                "liquidation_price": "40160.64257028",
                "bankruptcy_price": "40000.00000000",
            }
        ],
    }
    assert expected == report(account())


def test_an_isolated_position_stands_on_its_bucket() -> None:
    """500 behind 0.1 BTC is gone at 45,000; the pool has nothing to do with it."""
    result = report(account(positions=[position("0.1", "50000", bucket="500")]))

    assert ("1000.00000000", "0.00000000", "0.00000000") == (
        result["equity"],
        result["maintenance_margin"],
        result["margin_ratio"],
    )
    assert ("0.04000000", "45000.00000000") == (
        result["positions"][0]["margin_ratio"],
        result["positions"][0]["bankruptcy_price"],
    )


def test_orders_count_as_accepted_at_the_marks_given() -> None:
    """A bid for 0.1 at 51,000 reserves 505/2 + 100 of open loss + 2.55 of fee beside the position's 250."""
    result = report(account(orders=[order("BUY", "0.1", "51000")]))

    assert "607.55000000" == result["initial_margin"]  # (5,000 + 5,100) / 20 + 100 + 2.55


def test_orders_that_only_reduce_need_nothing() -> None:
    """With or without saying so, up to the position's size."""
    plain, marked = order("SELL", "0.06", "51000"), order("SELL", "0.04", "51000", reduce_only=True)

    assert "250.00000000" == report(account(orders=[plain, marked]))["initial_margin"]


def test_unrealised_profit_is_available_but_not_withdrawable() -> None:
    """A profit of 100 at mark."""
    result = report(account(positions=[position("0.1", "49000")]))

    assert ("850.00000000", "750.00000000") == (result["available"], result["withdrawable"])


def test_an_average_price_costs_a_whole_unit_rounded_against_the_account() -> None:
    """0.001 × 0.00000001 is less than a unit: a long paid one, a short received none."""
    long, short = (
        report(account(positions=[position(size, "50000.00000001")])) for size in ("0.001", "-0.001")
    )

    assert ("-0.00000001", "0.00000000") == (
        long["positions"][0]["unrealized_pnl"],
        short["positions"][0]["unrealized_pnl"],
    )


def test_without_equity_there_is_no_ratio_and_without_a_positive_price_none() -> None:
    """A pool in debt; a long that no price can bring there."""
    poor = report(account(wallet="-10"))
    rich = report(account(wallet="10000"))["positions"][0]

    assert [None, None] == [poor["margin_ratio"], poor["positions"][0]["margin_ratio"]]
    assert "50100.00000000" == poor["positions"][0]["bankruptcy_price"], "beyond the mark"
    assert [None, None] == [rich["liquidation_price"], rich["bankruptcy_price"]]


def test_hedge_legs_in_cross_share_one_liquidation_price() -> None:
    """Both move: 1,000 + 0.2 (p − 50,000) − 0.1 (p − 50,000) = 0.3 p × 0.004, at 4,000 / 0.0988."""
    scenario = read(hedge(position("0.2", "50000"), position("-0.1", "50000")))
    prices = [liquidation_price_of(scenario.account, leg) for leg in scenario.open_positions]

    assert [Fraction(4000) / Fraction("0.0988") * 10] * 2 == [Fraction(*price or (0, 1)) for price in prices]


def test_of_two_liquidation_prices_the_nearer_is_given() -> None:
    """415 + 0.01 (p − 50,000) meets maintenance below at 85 / 0.00196 and above at 515 / 0.0101."""
    near_top = hedge(position("1.01", "50000"), position("-1", "50000"), wallet="415")
    scenario = read(near_top)
    nearer = "50990.09900990"

    assert [nearer, nearer] == [each["liquidation_price"] for each in margin_report(scenario)["positions"]]
    moved = tried(near_top, {"mark": {"BTCUSDT": "44000"}})[0]["result"]["positions"]
    assert ["43367.34693878"] * 2 == [each["liquidation_price"] for each in moved]


def test_a_shared_price_at_a_border_is_found() -> None:
    """At 50,000 the legs need 205 + 200, which is the wallet, and the short is just at its bracket's cap."""
    top = hedge(position("1.01", "50000"), position("-1", "50000"), wallet="405")

    assert ["50000.00000000"] * 2 == [each["liquidation_price"] for each in report(top)["positions"]]


@pytest.mark.parametrize("size", ["0.1", "0.2"])
def test_a_price_of_zero_is_none(size: str) -> None:
    """A bucket that pays the whole position is never used up: the formula's answer is 0."""
    held = position(size, "50000", bucket=f"{Fraction(size) * 50000}")
    alone = read(account(positions=[held])).open_positions[0]

    assert liquidation_price(alone, alone.bucket) is None
    assert shared_liquidation_price([alone], alone.bucket) is None


@pytest.mark.parametrize("size", ["0.1", "-0.1", "3", "-3", "1", "-1"])
@pytest.mark.parametrize("bucket", ["-50", "0", "10", "500", "49999", "600000"])
def test_one_leg_shares_with_nobody(size: str, bucket: str) -> None:
    """For a single position both ways to the price are one."""
    held = read(account(positions=[position(size, "50000", bucket=bucket)])).open_positions[0]

    alone, shared = liquidation_price(held, held.bucket), shared_liquidation_price([held], held.bucket)
    assert (alone is None) == (shared is None)
    assert Fraction(*alone or (0, 1)) == Fraction(*shared or (0, 1))


def test_prices_are_rounded_half_to_even() -> None:
    """Of ticks of 0.00000001: 0.5 → 0, 1.5 → 2, 2.5 → 2, and just above a half goes up."""
    assert [0, 2, 2, 3] == [price_amount(price, 1) for price in ((1, 2), (3, 2), (5, 2), (51, 20))]


def test_steps_are_taken_in_order_and_build_on_each_other() -> None:
    """The mark falls, a bid rests, the leverage rises: 4,900 and 4,900 at 40× from then on."""
    fall, bid, leverage = tried(
        account(),
        {"mark": {"BTCUSDT": "49000"}},
        {"order": order("BUY", "0.1", "49000")},
        {"set_leverage": {"market": "BTCUSDT", "leverage": 40}},
    )

    assert [True] * 3 == [each["accepted"] for each in (fall, bid, leverage)]
    assert "900.00000000" == fall["result"]["equity"]
    assert "492.45000000" == bid["result"]["initial_margin"]  # 490, and a fee of 2.45
    assert "247.45000000" == leverage["result"]["initial_margin"]


def test_a_refused_step_says_why_and_changes_nothing() -> None:
    """Ten bitcoins are too many; what comes after is taken as if it had not been asked."""
    refused, after = tried(account(), {"order": order("BUY", "10", "50000")}, {"mark": {"BTCUSDT": "50000"}})

    assert (False, "INSUFFICIENT_MARGIN") == (refused["accepted"], refused["refusal"]["code"])
    needed = "25250"  # 25,000 for ten at 20×, and a fee of 250
    assert f"size: needs {needed} of margin, 750 is available" == refused["refusal"]["reason"]
    assert report(account()) == refused["result"] == after["result"]
    assert after["refusal"] is None


def test_switching_modes_and_back() -> None:
    """To isolated with 600 of margin, 100 more, 50 back, and to cross: the money is where it was."""
    steps = tried(
        account(),
        {"set_margin_mode": {"market": "BTCUSDT", "margin_mode": "isolated", "margin": "600"}},
        {"add_margin": {"market": "BTCUSDT", "amount": "100"}},
        {"add_margin": {"market": "BTCUSDT", "amount": "-50"}},
        {"set_margin_mode": {"market": "BTCUSDT", "margin_mode": "cross"}},
    )

    assert ["400.00000000", "300.00000000", "350.00000000", "1000.00000000"] == [
        each["wallet"] for each in steps
    ]
    assert ["600.00000000", "700.00000000", "650.00000000", None] == [
        each["buckets"][0]["bucket"] for each in steps
    ]
    assert report(account()) == steps[-1]["result"]


def test_a_switch_shows_both_sides_and_a_dry_run_moves_nothing() -> None:
    """600 would leave the pool, and the long die at (5,000 − 600) / (0.1 × 0.996) instead of 40,160.64."""
    switch = {"market": "BTCUSDT", "margin_mode": "isolated", "margin": "600"}

    dry, done = tried(
        account(), {"set_margin_mode": {**switch, "dry_run": True}}, {"set_margin_mode": switch}
    )

    assert dry["change"] == done["change"]
    assert {
        "wallet_before": "1000.00000000",
        "wallet_after": "400.00000000",
        "legs": [
            {
                "leg": "BOTH",
                "size": "0.100",
                "bucket_before": "0.00000000",
                "bucket_after": "600.00000000",
                "margin_ratio_before": "0.02000000",
                "margin_ratio_after": "0.03333334",
                "liquidation_price_before": "40160.64257028",
                "liquidation_price_after": "44176.70682731",
            }
        ],
    } == dry["change"]
    assert (report(account()), "1000.00000000") == (dry["result"], dry["wallet"])
    assert "400.00000000" == done["wallet"]


def test_an_order_that_would_meet_ones_own_is_refused() -> None:
    """On an exchange one of the two would disappear; the file's orders and those of steps are named."""
    file = account(orders=[order("BUY", "0.1", "49000")])
    ask = {"order": order("SELL", "0.1", "49500")}

    asked, first, second = tried(
        file, ask, {"order": order("SELL", "0.1", "49000")}, {"order": order("BUY", "0.1", "49500")}
    )

    assert asked["accepted"]
    assert [
        {"code": "SELF_TRADE", "reason": "price: crosses orders[0]"},
        {"code": "SELF_TRADE", "reason": "price: crosses what_if[0].order"},
    ] == [first["refusal"], second["refusal"]]
    assert asked["result"] == second["result"]


def in_market(**changes: Any) -> File:
    """The account, its market changed."""
    file = account()
    file["markets"]["BTCUSDT"] |= changes
    return file


def without(name: str) -> File:
    """The account without one of its fields."""
    return {key: value for key, value in account().items() if key != name}


LISTED = account()["markets"]["BTCUSDT"]
LOW, HIGH = account()["markets"]["BTCUSDT"]["brackets"]
LONG, SHORT = position("1", "50000", leg="LONG"), position("-1", "50000", leg="SHORT")

WRONG: list[tuple[Callable[[], Any], str]] = [
    (list, "input: expected object, got array"),
    (lambda: without("wallet"), "wallet: is missing"),
    (lambda: account(wealth="1"), "wealth: is not a known field"),
    (lambda: account(wallet=1000), "wallet: expected a string, got int"),
    (lambda: account(wallet="1e3"), "wallet: must be a plain decimal number"),
    (lambda: account(wallet="1.123456789"), "wallet: must have at most 8 digits"),
    (lambda: account(markets={}), "markets: must not be empty"),
    (lambda: account(position_mode="both"), "position_mode: must be one_way or hedge"),
    (lambda: in_market(mark="0"), "markets.BTCUSDT.mark: must be positive"),
    (lambda: in_market(mark="50000.05"), "markets.BTCUSDT.mark: must be a multiple of 0.1"),
    (lambda: in_market(mark=None), "markets.BTCUSDT.mark: expected a string, got null"),
    (lambda: in_market(lot="1"), "markets.BTCUSDT.lot: is not a known field"),
    (lambda: in_market(tick_size="0"), "markets.BTCUSDT.tick_size: must be positive"),
    (
        lambda: in_market(tick_size="0.00001", lot_size="0.0001"),
        "markets.BTCUSDT.tick_size × lot_size: must be a whole number",
    ),
    (lambda: in_market(taker_fee="1"), "markets.BTCUSDT.taker_fee: must be in [0, 1)"),
    (lambda: in_market(brackets=[]), "markets.BTCUSDT.brackets: must not be empty"),
    (lambda: in_market(brackets=[HIGH, LOW]), "markets.BTCUSDT.brackets[1].cap: must rise"),
    (
        lambda: in_market(brackets=[LOW, HIGH | {"maintenance_margin_rate": "0.004"}]),
        "markets.BTCUSDT.brackets[1].maintenance_margin_rate: must rise",
    ),
    (
        lambda: in_market(brackets=[LOW | {"max_leverage": "1.5"}]),
        "markets.BTCUSDT.brackets[0].max_leverage: must be a whole number",
    ),
    (
        lambda: in_market(brackets=[{"cap": "1"}]),
        "markets.BTCUSDT.brackets[0].maintenance_margin_rate: is missing",
    ),
    (
        lambda: account(positions=[position("0.1", "50000", market="X")]),
        "positions[0].market: 'X' is not among",
    ),
    (lambda: account(positions=[position("0", "50000")]), "positions[0].size: must not be zero"),
    (
        lambda: account(positions=[position("0.0001", "50000")]),
        "positions[0].size: must be a multiple of 0.001",
    ),
    (
        lambda: account(positions=[position("9999999999", "1")]),
        "positions[0].size: its notional is too large",
    ),
    (lambda: account(positions=[position("0.1", "-1")]), "positions[0].entry_price: must be a plain decimal"),
    (lambda: account(positions=[position("0.1", "0")]), "positions[0].entry_price: must be positive"),
    (
        lambda: account(positions=[position("1", "50000", leverage=0)]),
        "positions[0].leverage: must be a whole",
    ),
    (
        lambda: account(positions=[position("1", "50000", leverage=126)]),
        "positions[0].leverage: must be at most 125",
    ),
    (
        lambda: account(positions=[position("1", "50000", leverage=True)]),
        "positions[0].leverage: must be a whole number, got bool",
    ),
    (
        lambda: account(positions=[position("1", "1", margin_mode="x")]),
        "positions[0].margin_mode: must be CROSS or",
    ),
    (
        lambda: account(positions=[position("1", "1", margin_mode="isolated")]),
        "positions[0].bucket: is missing",
    ),
    (
        lambda: account(positions=[position("1", "1", bucket="1", margin_mode="cross")]),
        "positions[0].bucket: a cross position has none",
    ),
    (lambda: account(positions=[position("1", "1", leg="LONG")]), "positions[0].leg: must be BOTH"),
    (lambda: account(positions=[position("1", "1")] * 2), "positions[1]: is a second position in BTCUSDT"),
    (lambda: hedge(position("1", "1"), position("1", "1")), "positions[1].size: must be negative"),
    (lambda: hedge(position("-1", "1"), position("-1", "1")), "positions[0].size: must be positive"),
    (
        lambda: hedge(LONG, SHORT | {"leverage": 3}),
        "positions[1]: must have the margin mode and the leverage",
    ),
    (lambda: account(position_mode="hedge"), "positions[0].leg: must be LONG or SHORT"),
    (lambda: account(orders=[order("HOLD", "1", "1")]), "orders[0].side: must be BUY or SELL"),
    (lambda: account(orders=[order("BUY", "0", "1")]), "orders[0].size: must be positive"),
    (lambda: account(orders=[order("BUY", "1", "0")]), "orders[0].price: must be positive"),
    (
        lambda: account(orders=[order("BUY", "1", "1", reduce_only="no")]),
        "orders[0].reduce_only: expected bool",
    ),
    (
        lambda: account(orders=[order("BUY", "1", "1", reduce_only=True)]),
        "orders[0].size: the position can be reduced by 0",
    ),
    (
        lambda: account(orders=[order("BUY", "0.1", "50000"), order("SELL", "0.1", "50000")]),
        "orders[1].price: crosses orders[0]",
    ),
    (lambda: account(positions=[position("1", "1", leg="LEFT")]), "positions[0].leg: must be BOTH"),
    (lambda: account(positions=[position("1", "1", leg="")]), "positions[0].leg: must be BOTH"),
    (lambda: account(wallet="-1", positions=[]), "wallet: must not be negative without a cross position"),
    (lambda: account(wallet="-1", positions=[position("1", "50000", bucket="1")]), "wallet: must not be neg"),
    (lambda: account(markets={"": LISTED}), "markets: a market must have a name"),
    (lambda: account(markets={"BTC\n": {}}), "markets.'BTC\\n'.mark: is missing"),
    (lambda: account(**{"x" * 50: 1}), f"'{'x' * 40}…': is not a known field"),
    (
        lambda: in_market(tick_size="40000000000", lot_size="40000000000"),
        "markets.BTCUSDT.tick_size × lot_size: is too large",
    ),
    (
        lambda: account(what_if=[{"mark": {"BTCUSDT": 1}}]),
        "what_if[0].mark.BTCUSDT: expected a string, got int",
    ),
    (lambda: account(what_if=[{}]), "what_if[0]: must have one of the names mark, order"),
    (lambda: account(what_if=["mark"]), "what_if[0]: must have one of the names"),
    (lambda: account(what_if=[{"mark": {}}]), "what_if[0].mark: must name a market"),
    (lambda: account(what_if=[{"mark": {"X": "1"}}]), "what_if[0].mark.X: 'X' is not among the markets"),
    (
        lambda: account(what_if=[{"order": order("BUY", "1", "0.01")}]),
        "what_if[0].order.price: must be a multiple",
    ),
    (
        lambda: account(what_if=[{"set_leverage": {"market": "BTCUSDT"}}]),
        "what_if[0].set_leverage.leverage: is missing",
    ),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_named(make: Callable[[], Any], message: str) -> None:
    """The field and the rule it breaks."""
    with pytest.raises(AccountFileError) as caught:
        read_steps(read(make()))

    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"wallet": "1", "wallet": "2"}', "wallet: is given twice"),
        (b'{"orders": [{}, {"size": "1", "size": "1"}]}', r"orders\[1\].size: is given twice"),
        (b'{"positions": [{"leverage": NaN}]}', r"positions\[0\].leverage: must not be NaN"),
        (b"-Infinity", "input: must not be -Infinity"),
    ],
)
def test_what_has_no_one_meaning_is_refused(text: bytes, message: str) -> None:
    """Readers of JSON differ in what they make of these; nothing is guessed."""
    with pytest.raises(AccountFileError, match=f"^{message}$"):
        read_scenario(text)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"markets": {}, }', b"[" * 100_000], ids=range(5))
def test_what_is_no_json_is_said_to_be_none(text: bytes) -> None:
    """Before anything else."""
    with pytest.raises(AccountFileError, match="input: is not JSON"):
        read_scenario(text)
