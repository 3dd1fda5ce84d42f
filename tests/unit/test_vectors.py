"""Worked numbers from public documentation and other test suites, through the calculator or the aggregate.

The numbers are in ../shared/reference/vectors.json, each with its source; here is only how each is asked of
Foldex, by name.
"""

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.events import LiquidationFinished, PositionDeleveraged
from events.values import Bracket, LiquidationResult, Side
from exchange.aggregate.funding import funding_rate, premium_of
from exchange.aggregate.liquidation_price import liquidation_price_of
from exchange.aggregate.market import PRICE_SCALE, Brackets, spec_problem
from exchange.aggregate.posting import hold
from exchange.aggregate.ranking import rank
from exchange.calc.account_file import read_scenario
from exchange.calc.report import margin_report
from exchange.calc.what_if import read_steps, try_steps
from tests.venue import Trader, Venue, every, money, only, spec

Vector = dict[str, Any]
HALF_DIGIT = Fraction(1, 2 * 10**8)

# Of the contracts in the exchange's own examples, as they were then: cap, rate, highest leverage.
BTC_2021 = [
    ("50000", "0.004", 125),
    ("250000", "0.005", 100),
    ("1000000", "0.01", 50),
    ("10000000", "0.025", 20),
    ("20000000", "0.05", 10),
    ("50000000", "0.1", 5),
    ("100000000", "0.125", 4),
    ("200000000", "0.15", 3),
    ("300000000", "0.25", 2),
    ("500000000", "0.5", 1),
]
ETH_2021 = [
    ("10000", "0.005", 100),
    ("100000", "0.0065", 75),
    ("500000", "0.01", 50),
    ("1000000", "0.02", 25),
    ("2000000", "0.05", 10),
    ("5000000", "0.1", 5),
]


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> dict[str, Vector]:
    """The worked numbers by name, or skip where they are absent."""
    path = shared_data.parent / "reference" / "vectors.json"
    if not path.is_file():
        pytest.skip("the worked numbers are not beside the project (../shared/reference/vectors.json)")
    return {each["id"]: each for each in json.loads(path.read_text())["vectors"]}


def market(mark: str, brackets: list[tuple[str, str, int]], *, tick: str = "0.01") -> dict[str, Any]:
    """A contract without fees at a mark."""
    return {
        "mark": mark,
        "tick_size": tick,
        "lot_size": "0.001",
        "taker_fee": "0",
        "brackets": [
            {"cap": cap, "maintenance_margin_rate": rate, "max_leverage": leverage}
            for cap, rate, leverage in brackets
        ],
    }


def position(size: str, entry: str, *, leverage: int = 1, **more: str) -> dict[str, Any]:
    """A position in market X; cross, unless it has a bucket."""
    mode = "isolated" if "bucket" in more else "cross"
    held = {"market": "X", "size": size, "entry_price": entry, "margin_mode": mode, "leverage": leverage}
    return held | more


def order(side: str, size: str, price: str) -> dict[str, Any]:
    """An open order in market X."""
    return {"market": "X", "side": side, "size": size, "price": price}


def calculate(file: dict[str, Any]) -> dict[str, Any]:
    """Ask the calculator, steps included."""
    scenario = read_scenario(msgspec.json.encode(file))
    steps = read_steps(scenario)
    report = margin_report(scenario)
    return report | {"what_if": try_steps(scenario, steps)}


def exact_liquidation_price(file: dict[str, Any], symbol: str = "X") -> Fraction:
    """Ask for the price before it is rounded for print."""
    scenario = read_scenario(msgspec.json.encode(file))
    held = next(each for each in scenario.open_positions if each.market.symbol == symbol)
    price = liquidation_price_of(scenario.account, held)
    assert price is not None
    return Fraction(*price) * held.market.spec.tick_size / 10**8


def near(vector: Vector, name: str, found: str | Fraction, *, printed: bool = True) -> None:
    """Check a number within the tolerance of its source; what is printed may be half a last digit off."""
    room = Fraction(vector["tolerance"]) + (HALF_DIGIT if printed else 0)
    expected = Fraction(vector["expected"][name])
    assert abs(expected - Fraction(found)) <= room, (name, expected, found)


# Maintenance and brackets


def btc_and_eth(vector: Vector, wallet: str = "0") -> dict[str, Any]:
    """The long positions of the exchange's own example, both cross."""
    btc, eth = vector["inputs"]["btc"], vector["inputs"]["eth"]
    return {
        "markets": {"BTC": market(btc["mark"], BTC_2021), "X": market(eth["mark"], ETH_2021)},
        "wallet": wallet,
        "positions": [
            position(btc["qty"], btc["ep"]) | {"market": "BTC"},
            position(eth["qty"], eth["ep"]),
        ],
    }


def check_maintenance_and_profit(vector: Vector) -> None:
    """Each position's maintenance margin and profit at mark."""
    btc, eth = calculate(btc_and_eth(vector))["positions"]

    near(vector, "tmm_btc", btc["maintenance_margin"])
    near(vector, "upnl_btc", btc["unrealized_pnl"])
    near(vector, "tmm_eth", eth["maintenance_margin"])
    near(vector, "upnl_eth", eth["unrealized_pnl"])


def check_bracket_table(vector: Vector) -> None:
    """The deduction of every bracket, exactly."""
    caps, rates = vector["inputs"]["caps"], vector["inputs"]["mmr"]
    assert [(cap, rate) for cap, rate, _ in BTC_2021] == list(zip(caps, rates, strict=True))
    rows = tuple(
        Bracket(cap=money(cap), maintenance_rate=money(rate), max_leverage=1)
        for cap, rate in zip(caps, rates, strict=True)
    )

    assert [Fraction(cum) * 10**16 for cum in vector["expected"]["cum"]] == Brackets(rows).deductions


def check_border(vector: Vector) -> None:
    """A notional at a cap belongs to the lower bracket."""
    brackets = [(cap, rate, 50) for cap, rate, _ in vector["inputs"]["brackets"]]
    file = {
        "markets": {"X": market(vector["inputs"]["notional"], brackets)},
        "wallet": "0",
        "positions": [position("1", "50000")],
    }

    near(vector, "maintenance_margin", calculate(file)["positions"][0]["maintenance_margin"])


def check_hyperliquid_tiers(vector: Vector) -> None:
    """Rates of half the initial margin; the second bracket is open above."""
    rates, inputs = vector["expected"]["mmr"], vector["inputs"]
    leverages = [int(leverage) for _, leverage in inputs["tiers"]]
    caps = [inputs["tiers"][1][0], "1000000000"]
    brackets = list(zip(caps, rates, leverages, strict=True))
    file = {
        "markets": {"X": market("100000", brackets)},
        "wallet": "0",
        "positions": [position("2000", "100000")],
    }
    held = read_scenario(msgspec.json.encode(file)).open_positions[0]
    deductions = held.market.brackets.deductions

    assert inputs["notional"] == str(2000 * 100_000)
    assert [Fraction(each) * 10**16 for each in vector["expected"]["deduction"]] == deductions
    near(vector, "mm", calculate(file)["positions"][0]["maintenance_margin"])


# Liquidation prices


def check_cross_price(vector: Vector) -> None:
    """The other position counts with its maintenance and profit at its own mark."""
    inputs = vector["inputs"]
    as_published = {"inputs": {"btc": inputs["other_positions"][0], "eth": inputs["position"]}}
    file = btc_and_eth(as_published, inputs["wallet_balance"])

    near(vector, "liquidation_price", calculate(file)["positions"][1]["liquidation_price"])


def check_isolated_price(vector: Vector) -> None:
    """The same position on a bucket of its own."""
    inputs = vector["inputs"]
    held = inputs["position"]
    file = {
        "markets": {"X": market(held["mark"], ETH_2021)},
        "wallet": "0",
        "positions": [position(held["qty"], held["ep"], bucket=inputs["isolated_wallet_balance"])],
    }

    near(vector, "liquidation_price", calculate(file)["positions"][0]["liquidation_price"])


def check_short_of_ten(vector: Vector) -> None:
    """A deduction of 0.01 at a rate of 1 % comes of a bracket up to 2 at 0.5 %.

    Asked for a thousand times the position, which has the same price: a third of 10 is no money.
    """
    inputs = vector["inputs"]
    entry, size = Fraction(inputs["entry"]), 1000 * Fraction(inputs["qty"])
    bucket = Decimal(f"{entry * size}") / int(inputs["leverage"])
    file = {
        "markets": {"X": market("10", [("2000", "0.005", 20), ("1000000", "0.01", 20)])},
        "wallet": "0",
        "positions": [position(f"-{size}", inputs["entry"], bucket=f"{bucket:.8f}")],
    }

    near(vector, "liquidation_price", exact_liquidation_price(file), printed=False)
    near(vector, "liquidation_price", calculate(file)["positions"][0]["liquidation_price"])


def check_other_bracket_at_liquidation(vector: Vector) -> None:
    """The price is taken in the bracket of the notional it leads to."""
    inputs = vector["inputs"]
    file = {
        "markets": {"X": market(inputs["entry"], BTC_2021)},
        "wallet": "0",
        "positions": [position(inputs["qty"], inputs["entry"], bucket=inputs["isolated_wallet_balance"])],
    }

    report = calculate(file)["positions"][0]
    assert inputs["entry_notional"] == str(int(Decimal(report["notional"])))
    near(vector, "liquidation_price", report["liquidation_price"])


def check_hedge_without_price(vector: Vector) -> None:
    """The raw root is negative: there is no price, for either leg."""
    inputs = vector["inputs"]
    file = {
        "markets": {"X": market("100", [("1000000", inputs["mmr"], 50)])},
        "position_mode": "hedge",
        "wallet": inputs["wallet"],
        "positions": [
            position(inputs["long"]["qty"], inputs["long"]["entry"], leg="LONG"),
            position("-" + inputs["short"]["qty"], inputs["short"]["entry"], leg="SHORT"),
        ],
    }

    assert [None, None] == [each["liquidation_price"] for each in calculate(file)["positions"]]


# Orders, isolation, margin moves


def check_order_cost(vector: Vector) -> None:
    """Initial margin at the limit, and the open loss against mark."""
    inputs = vector["inputs"]
    leverage = int(inputs["leverage"])
    brackets = [("50000", "0.004", leverage)]

    def required(side: str) -> Fraction:
        """What an order takes of the wallet, less the initial margin at its own limit."""
        file = {
            "markets": {"X": market(inputs["mark"], brackets)},
            "wallet": "1000",
            "orders": [order(side, inputs["qty"], inputs["price"])],
        }
        report = calculate(file)
        assert Fraction(report["available"]) == 1000 - Fraction(report["initial_margin"])
        return Fraction(report["initial_margin"])

    near(vector, "im", required("BUY"))
    initial = Fraction(inputs["price"]) / leverage
    near(vector, "open_loss_long", required("BUY") - initial)
    near(vector, "open_loss_short", required("SELL") - initial)


def check_one_way_exposure(vector: Vector) -> None:
    """max(|P + B|, |P − A|): the bids beyond the short do not add to it."""
    inputs = vector["inputs"]
    size, bid = (str(Fraction(inputs[name]) / 1000) for name in ("position_notional", "bid_order_value"))
    file = {
        "markets": {"X": market("1000", [("1000000", "0.004", 125)])},
        "wallet": "20000",
        "positions": [position(size, "1000", leverage=int(inputs["leverage"]))],
        "orders": [order("BUY", bid, "1000")],
    }

    near(vector, "margin_required", calculate(file)["initial_margin"])


def check_buckets_never_net(vector: Vector) -> None:
    """The isolated position has nothing left; the pool, with more than it needs, is not touched.

    The pool's side is told with a requirement of 100 % of the notional: the 120 % of the source weigh a spot
    liability, which does not exist here.
    """
    cross, isolated = vector["inputs"]["cross"], vector["inputs"]["isolated"]
    brackets = [("1000000", "0.01", 50)]
    entry = str(-Fraction(isolated["quote"]) / Fraction(isolated["qty"]))
    leverage = int(1 / Fraction(isolated["imf"]))
    file = {
        "markets": {"SPOT": market(cross["price"], brackets), "X": market(isolated["price"], brackets)},
        "wallet": cross["deposit"],
        "positions": [
            position("-" + cross["short_spot_qty"], cross["price"]) | {"market": "SPOT"},
            position(isolated["qty"], entry, leverage=leverage, bucket=isolated["collateral"]),
        ],
    }

    report = calculate(file)
    pool, alone = report["positions"]
    near(vector, "cross_collateral", report["equity"])
    assert Fraction(report["initial_margin"]) < Fraction(report["equity"]), "the pool is well"
    near(vector, "iso_mr", alone["initial_margin"])
    assert Fraction(isolated["collateral"]) + Fraction(alone["unrealized_pnl"]) == int(
        vector["expected"]["iso_collateral"]
    )
    assert alone["margin_ratio"] is None, "no equity"
    assert pool["margin_ratio"] == report["margin_ratio"] == "0.00500000"


def check_switch_with_amount(vector: Vector) -> None:
    """The factor is the other exchange's way to name an amount; ours is named itself."""
    inputs, expected = vector["inputs"], vector["expected"]["isolated_margin"]
    amount = Fraction(inputs["avg_entry"]) * abs(int(inputs["position"])) * Fraction(inputs["margin_factor"])
    file = {
        "markets": {"X": market(inputs["avg_entry"], [("1000000", "0.01", 50)])},
        "wallet": "20000",
        "positions": [position(inputs["position"], inputs["avg_entry"], leverage=2)],
        "what_if": [{"set_margin_mode": {"market": "X", "margin_mode": "isolated", "margin": str(amount)}}],
    }

    (step,) = calculate(file)["what_if"]
    assert (vector["expected"]["accepted"], Fraction(expected)) == (
        step["accepted"],
        Fraction(step["buckets"][0]["bucket"]),
    )
    assert Fraction(inputs["initial_margin"]) < Fraction(expected)


def check_removable_margin(vector: Vector) -> None:
    """bucket + min(0, profit) − initial margin can be removed, and not a unit more."""
    inputs, expected = vector["inputs"], vector["expected"]["max_removable"]
    amounts = (f"-{expected}.00000001", f"-{expected}")
    held = position(inputs["qty"], inputs["entry"], leverage=int(inputs["leverage"]), bucket=inputs["margin"])
    file = {
        "markets": {"X": market(inputs["mark"], [("1000000", "0.01", 50)])},
        "wallet": "0",
        "positions": [held],
        "what_if": [{"add_margin": {"market": "X", "amount": amount}} for amount in amounts],
    }

    too_much, just = calculate(file)["what_if"]
    assert (False, True) == (too_much["accepted"], just["accepted"])
    assert Fraction(expected) == Fraction(just["wallet"])


# Funding, the fund, deleveraging


def check_funding_rate(vector: Vector) -> None:
    """Premium plus the interest's pull, which is bounded."""
    inputs = vector["inputs"]
    impact = int(inputs["impact_bid"]) * PRICE_SCALE
    premium = premium_of(int(inputs["oracle"]), impact, impact)
    terms = spec(interest_rate=money(inputs["interest"]), funding_cap=money("0.02"))

    assert money(vector["expected"]["premium"]) == premium
    assert money(vector["expected"]["rate"]) == funding_rate(terms, premium)
    assert money(vector["expected"]["clamped"]) == funding_rate(terms, premium) - premium


def crowd(mark: str, fund: str = "0") -> Venue:
    """A venue without fees at a mark, for positions made by hand."""
    venue = Venue(specs=(spec("X", maker_fee=0, taker_fee=0, liquidation_fee=0),), fund=fund)
    venue.index("X", mark)
    venue.checks = False  # until all are there, sizes do not add up to 0
    return venue


def holder(venue: Venue, size: str, entry: str, equity: str) -> Trader:
    """An account with a cross position, and a wallet such that the pool has this equity at mark."""
    trader = venue.account()
    market = venue.state.markets["X"]
    held = trader.account.stored_position(market)
    lots = venue.lots("X", size.lstrip("-"))
    held.size_lots = -lots if size.startswith("-") else lots
    held.entry_cost = held.size_lots * venue.ticks("X", entry) * market.unit
    profit = held.size_lots * market.mark_ticks * market.unit - held.entry_cost
    trader.account.wallet = money(equity) - profit
    hold(market, trader.account, held)
    # As if it had come about by deposits and trades.
    venue.state.deposited += trader.account.wallet - held.entry_cost
    market.open_interest_lots += max(0, held.size_lots)
    return trader


def closed_by(venue: Venue, dying: Trader) -> list[tuple[int, Fraction]]:
    """Liquidate an account that only the other side can take from; return who took how much, in order."""
    venue.checks = True
    events = venue.liquidate(dying)
    lot = Fraction(venue.state.markets["X"].spec.lot_size, 10**8)
    return [
        (party.account_id, party.quantity_lots * lot)
        for each in every(PositionDeleveraged, events)
        for party in each.parties
    ]


def check_deleveraging_order(vector: Vector) -> None:
    """Longs from 100 at a mark of 120 have a profit ratio of 0.2; their equity makes the score."""
    venue, inputs = crowd("120"), vector["inputs"]
    longs = {}
    for each in inputs["longs"]:
        equity = Fraction("0.2") * int(each["qty"]) * 120 / int(each["score"])
        longs[holder(venue, each["qty"], "100", str(equity)).account_id] = each["id"]
    dying = holder(venue, "-" + inputs["liquidated_short_qty"], "100", "-0.01")
    holder(venue, "-80", "120", "100000")

    closed = [[longs[account_id], str(size)] for account_id, size in closed_by(venue, dying)]
    assert vector["expected"]["closed"] == closed


def check_deleveraging_score(vector: Vector) -> None:
    """The figures make that score; a unit of equity less makes a higher one, a unit more a lower one."""
    inputs = vector["inputs"]
    venue = crowd(inputs["mark"])
    equity = int(inputs["qty"]) * (int(inputs["mark"]) - int(inputs["bankruptcy"]))
    lower = holder(venue, inputs["qty"], inputs["entry"], f"{equity}.00000001")
    asked = holder(venue, inputs["qty"], inputs["entry"], str(equity))
    higher = holder(venue, inputs["qty"], inputs["entry"], f"{equity - 1}.99999999")

    rows = rank(venue.state.accounts, venue.state.markets["X"], Side.BUY).rows
    assert [higher.account_id, asked.account_id, lower.account_id] == [row.account_id for row in rows]
    row = rows[1]
    score = Fraction(row.unrealised, row.entry_cost) * Fraction(row.notional, row.equity)
    near(vector, "score", score, printed=False)


def check_deleveraging_tie(vector: Vector) -> None:
    """Two shorts alike: the lower account closes, whole, although the other is named first."""
    venue, inputs = crowd(vector["inputs"]["mark"]), vector["inputs"]
    shorts = sorted(inputs["shorts"], key=lambda each: int(each["id"]))
    for each in shorts:
        profit = int(each["qty"]) * (int(inputs["mark"]) - int(each["entry"]))
        trader = holder(venue, each["qty"], each["entry"], str(int(each["equity"]) + profit))
        assert each["id"] == str(trader.account_id)
    dying = holder(venue, "10", "100", "-" + inputs["deficit"])
    holder(venue, "10", "40", "100000")

    closed = closed_by(venue, dying)
    assert vector["expected"]["closed"] == [str(account_id) for account_id, _ in closed]
    assert [10] == [size for _, size in closed]


def check_fund_absorbs(vector: Vector) -> None:
    """An isolated long with a bucket of 50 falls through it; the fund bears the rest."""
    inputs, expected = vector["inputs"], vector["expected"]
    venue = crowd(inputs["entry"], fund=inputs["fund"])
    venue.checks = True
    alice, bob = venue.account("1000"), venue.account("100000")
    alice.mode("X", "ISOLATED")
    alice.leverage("X", int(inputs["qty"]) * int(inputs["entry"]) // int(inputs["equity"]))
    bob.sell("X", inputs["qty"], inputs["entry"])
    alice.buy("X", inputs["qty"], inputs["entry"])
    assert money(inputs["equity"]) == alice.position("X").bucket

    venue.index("X", inputs["mark"])
    finished = only(LiquidationFinished, venue.liquidate(alice, "X"))

    assert LiquidationResult.TAKEN_OVER == finished.result
    assert money(expected["deficit"]) == finished.fund_before - finished.fund_after
    assert money(expected["fund_after"]) == finished.fund_after


CHECKS: dict[str, Callable[[Vector], None]] = {
    "binance-faq-tmm-upnl": check_maintenance_and_profit,
    "binance-faq-cross-eth": check_cross_price,
    "binance-faq-isolated-eth": check_isolated_price,
    "freqtrade-binance-iso-1": check_short_of_ten,
    "freqtrade-binance-iso-2": check_short_of_ten,
    "freqtrade-binance-iso-3": check_short_of_ten,
    "freqtrade-binance-iso-4": check_short_of_ten,
    "binance-btcusdt-bracket-table": check_bracket_table,
    "vibe-bracket-boundary-50000": check_border,
    "vibe-bracket-boundary-50001": check_border,
    "binance-order-cost-9253": check_order_cost,
    "binance-oneway-margin-req": check_one_way_exposure,
    "hyperliquid-btc-tier-deduction": check_hyperliquid_tiers,
    "drift-isolated-margin-independence": check_buckets_never_net,
    "bitmex-adl-order": check_deleveraging_order,
    "bitmex-adl-score-derived": check_deleveraging_score,
    "flox-insurance-absorbs": check_fund_absorbs,
    "flox-adl-tiebreak": check_deleveraging_tie,
    "vega-switch-to-isolated-0.9": check_switch_with_amount,
    "hyperliquid-funding-example": check_funding_rate,
    "derived-tier-change-long": check_other_bracket_at_liquidation,
    "derived-hedge-shared-liq": check_hedge_without_price,
    "derived-remove-margin-limit": check_removable_margin,
}


@pytest.mark.parametrize("name", CHECKS)
def test_worked_number(name: str, vectors: dict[str, Vector]) -> None:
    """Each published or derived number comes out."""
    CHECKS[name](vectors[name])


def test_every_worked_number_is_asked(vectors: dict[str, Vector]) -> None:
    """None is left out."""
    assert CHECKS.keys() == vectors.keys()


def test_real_brackets_have_the_published_deductions(shared_data: Path) -> None:
    """cum_n = cum_{n−1} + floor_n × (rate_n − rate_{n−1}) gives every cum of eight contracts."""
    path = shared_data / "specs" / "leverage_brackets_2024-10.json"
    contracts = json.loads(path.read_text())
    assert 8 == len(contracts)
    for symbol, rows in contracts.items():
        brackets = tuple(
            Bracket(
                cap=money(row["notional_cap"]),
                maintenance_rate=money(row["maintenance_margin_rate"]),
                max_leverage=int(row["max_leverage"]),
            )
            for row in rows
        )
        table = Brackets(brackets)
        assert [money(row["notional_floor"]) for row in rows] == [table.floor(n) for n in range(len(rows))]
        assert [Fraction(row["cum"]) * 10**16 for row in rows] == table.deductions, symbol
        assert spec_problem(spec(symbol, brackets=brackets)) is None, symbol
