"""The exchange's margin against a second implementation of it, exactly, on random accounts.

Accounts are drawn as files for `foldex calc margin`, so that reading them is under test too. Many are drawn
onto the edges: notionals at a bracket's cap and a lot beside it, equity at maintenance and a unit beside it.
"""

import os
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.values import ISOLATED
from exchange.aggregate import margin
from exchange.aggregate.account import position_key
from exchange.aggregate.liquidation_price import bankruptcy_price, liquidation_price_of, price_amount
from exchange.audit.exact import UNIT, Contract, Holding, Tier, Wealth, up
from exchange.calc.account_file import Scenario, read_scenario
from exchange.calc.report import margin_report

ACCOUNTS = int(os.environ.get("FOLDEX_MARGIN_ACCOUNTS", "2500"))

Draw = Any

# Symbol: tick, lot, taker fee, and brackets of cap, rate, leverage. The third has a lot of 1 and a tick of
# 1e-5, so that maintenance is seldom whole; the fourth has caps that no product of lots and ticks meets.
MARKETS: dict[str, tuple[str, str, str, list[tuple[str, str, int]]]] = {
    "BTCUSDT": (
        "0.1",
        "0.001",
        "0.0005",
        [
            ("50000", "0.004", 125),
            ("600000", "0.005", 100),
            ("3000000", "0.0065", 75),
            ("12000000", "0.01", 50),
        ],
    ),
    "ETHUSDT": (
        "0.01",
        "0.01",
        "0.0004",
        [("10000", "0.005", 100), ("500000", "0.01", 50), ("1000000", "0.25", 3)],
    ),
    "DOGEUSDT": ("0.00001", "1", "0.00045", [("5000", "0.0123", 50), ("40000", "0.0333333", 20)]),
    "ODDUSDT": ("0.00007", "3", "0", [("777.77777777", "0.5", 1), ("12345.6789", "0.87654321", 1)]),
}
SELECTIONS = [names for count in (1, 2, 3) for names in combinations(MARKETS, count)]
HEDGES = (("LONG",), ("SHORT",), ("LONG", "SHORT"), ("LONG", "SHORT"))
# Marks in ticks that are usual for each.
USUAL_TICKS = {"BTCUSDT": 500_000, "ETHUSDT": 300_000, "DOGEUSDT": 10_000, "ODDUSDT": 70_001}


def decimal(units: int) -> str:
    """Write 1e-8 units as a decimal."""
    sign = "-" if units < 0 else ""
    return f"{sign}{abs(units) // 10**8}.{abs(units) % 10**8:08}"


def units(text: str) -> int:
    """Read a decimal as 1e-8 units."""
    return int(Decimal(text).scaleb(8))


@st.composite
def accounts(draw: Draw) -> dict[str, Any]:
    """Draw an account as a file. Its structure is hypothesis's own, its numbers are of one drawn seed."""
    hedge = draw(st.booleans())
    names = draw(st.sampled_from(SELECTIONS))
    pick = Random(draw(st.integers(0, 2**64)))  # draws of their own would take longer than the checks
    markets, positions = {}, []
    orders: list[dict[str, Any]] = []
    for name in names:
        lots, mark_ticks = size_and_mark(pick, name)
        markets[name] = market(name, mark_ticks)
        possible = HEDGES if hedge else (("BOTH",),)
        legs = pick.choice(possible) if pick.randrange(8) else ()
        settings_of = {
            "margin_mode": pick.choice(("cross", "isolated")),
            "leverage": pick.randint(1, MARKETS[name][3][0][2]),
        }
        opened = [position(pick, name, leg, lots, mark_ticks, settings_of) for leg in legs]
        positions += opened
        held = {each["leg"]: units(each["size"]) // units(MARKETS[name][1]) for each in opened}
        for _ in range(pick.randint(0, 2)):
            one = order(pick, name, hedge, held, lots, mark_ticks)
            if one and not any(cross(one, other) for other in orders):
                orders.append(one)
    is_cross = any(each["margin_mode"] == "cross" for each in positions)
    return {
        "markets": markets,
        "position_mode": "hedge" if hedge else "one_way",
        "wallet": decimal(pick.randint(-(10**11) if is_cross else 0, 10 ** pick.randint(11, 14))),
        "positions": positions,
        "orders": orders,
    }


def cross(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two orders would trade with each other."""
    if one["market"] != other["market"] or one["side"] == other["side"]:
        return False
    bid, ask = (one, other) if one["side"] == "BUY" else (other, one)
    return units(bid["price"]) >= units(ask["price"])


def size_and_mark(pick: Random, name: str) -> tuple[int, int]:
    """Pick a size in lots and a mark in ticks: usual ones, or such that size × mark is a bracket's cap."""
    tick, lot, _, rows = MARKETS[name]
    unit = units(tick) * units(lot) // 10**8
    cap = units(pick.choice(rows)[0])
    usual_ticks = USUAL_TICKS[name]
    if pick.randrange(2):
        lots = cap * pick.randint(1, 150) // (100 * usual_ticks * unit)
        return max(1, lots), usual_ticks + pick.randint(-5_000, 5_000)
    # A part of the cap that whole lots of 2^a × 5^b divide.
    product = cap // unit
    lots = 2 ** pick.randint(0, 6) * 5 ** pick.randint(0, 4)
    return (lots, product // lots) if product // lots else (product, 1)


def market(name: str, mark_ticks: int) -> dict[str, Any]:
    """Write a market of the table at a mark."""
    tick, lot, fee, rows = MARKETS[name]
    return {
        "mark": decimal(mark_ticks * units(tick)),
        "tick_size": tick,
        "lot_size": lot,
        "taker_fee": fee,
        "brackets": [
            {"cap": cap, "maintenance_margin_rate": rate, "max_leverage": leverage}
            for cap, rate, leverage in rows
        ],
    }


def position(
    pick: Random, name: str, leg: str, lots: int, mark_ticks: int, settings_of: dict[str, Any]
) -> dict[str, Any]:
    """Pick a position of about `lots`, opened within 30 % of the mark."""
    size = max(1, lots + pick.choice((0, 0, -1, 1, lots, -lots // 3)))
    is_short = leg == "SHORT" or (leg == "BOTH" and pick.randrange(2))
    tick, lot, _, _ = MARKETS[name]
    entry = mark_ticks * units(tick) * pick.randint(70, 130) // 100 + pick.randint(1, 10**6)
    bucket = {"bucket": decimal(pick.randint(-(10**9), 10**13))}
    return {
        "market": name,
        "leg": leg,
        "size": decimal((-size if is_short else size) * units(lot)),
        "entry_price": decimal(entry),
        **settings_of,
        **(bucket if settings_of["margin_mode"] == "isolated" else {}),
    }


def order(
    pick: Random, name: str, hedge: bool, held: dict[str, int], lots: int, mark_ticks: int
) -> dict[str, Any] | None:
    """Pick an order that could be open; None where one that only reduces has nothing to reduce."""
    leg = pick.choice(("LONG", "SHORT")) if hedge else "BOTH"
    side = pick.choice(("BUY", "SELL"))
    sign = 1 if side == "BUY" else -1
    reducible = max(0, -sign * held.get(leg, 0))
    by_nature = (leg == "LONG" and sign < 0) or (leg == "SHORT" and sign > 0)
    reduces = by_nature or pick.randrange(4) == 0
    most = reducible if reduces else 2 * lots
    if most == 0:
        return None
    # Often just what can be reduced, a lot less or a lot more.
    near = pick.choice((reducible, reducible - 1, reducible + 1, pick.randint(1, most)))
    tick, lot, _, _ = MARKETS[name]
    price_ticks = max(1, mark_ticks + pick.randint(-(mark_ticks // 10), mark_ticks // 10))
    return {
        "market": name,
        "side": side,
        "leg": leg,
        "price": decimal(price_ticks * units(tick)),
        "size": decimal(min(max(1, near), most) * units(lot)),
        "reduce_only": reduces and not (by_nature and pick.randrange(2)),
    }


def understood(file: dict[str, Any]) -> Wealth:
    """Read a file as the second implementation does: strings to fractions, nothing else."""
    contracts = {
        name: Contract(
            mark=Fraction(each["mark"]),
            taker_fee=Fraction(each["taker_fee"]),
            tiers=tuple(
                Tier(Fraction(row["cap"]), Fraction(row["maintenance_margin_rate"]), row["max_leverage"])
                for row in each["brackets"]
            ),
        )
        for name, each in file["markets"].items()
    }
    holdings = {
        (each["market"], each["leg"]): Holding(
            contract=contracts[each["market"]],
            size=Fraction(each["size"]),
            cost=up(Fraction(each["size"]) * Fraction(each["entry_price"])),
            leverage=each["leverage"],
            isolated=each["margin_mode"] == "isolated",
            bucket=Fraction(each.get("bucket", 0)),
        )
        for each in file["positions"]
    }
    for each in file["orders"]:
        name, leg = each["market"], each["leg"]
        beside = [holding for (market, _), holding in holdings.items() if market == name]
        if (name, leg) not in holdings:
            leverage = beside[0].leverage if beside else min(20, contracts[name].tiers[0].max_leverage)
            isolated = bool(beside) and beside[0].isolated
            holdings[name, leg] = Holding(contracts[name], Fraction(0), Fraction(0), leverage, isolated)
        side = 1 if each["side"] == "BUY" else -1
        reduces = each["reduce_only"] or (leg, side) in (("LONG", -1), ("SHORT", 1))
        holdings[name, leg].orders.append((side * Fraction(each["size"]), Fraction(each["price"]), reduces))
    return Wealth(Fraction(file["wallet"]), holdings)


def onto_the_edge(file: dict[str, Any], beside: int) -> None:
    """Set wallet and buckets such that equity is `beside` units above maintenance."""
    wealth = understood(file)
    excess = wealth.equity - wealth.maintenance
    wallet = int((wealth.wallet - excess) / UNIT) + beside
    # Without a cross position there is no edge, and no wallet below zero.
    file["wallet"] = decimal(
        wallet if any(each["margin_mode"] == "cross" for each in file["positions"]) else abs(wallet)
    )
    for each in file["positions"]:
        if each["margin_mode"] == "isolated":
            holding = wealth.holdings[each["market"], each["leg"]]
            each["bucket"] = decimal(int((holding.maintenance - holding.profit) / UNIT) + beside)


def money(amount: int) -> Fraction:
    """Money units as quote."""
    return amount * UNIT


def compare(file: dict[str, Any]) -> None:
    """Check every figure of an account, and those printed."""
    scenario = read_scenario(msgspec.json.encode(file))
    wealth = understood(file)
    pool = margin.survey(scenario.account)
    assert (wealth.equity, wealth.initial, wealth.maintenance) == (
        money(pool.equity),
        money(pool.required + pool.reserved),
        money(pool.maintenance),
    )
    assert (wealth.available, wealth.withdrawable) == (
        money(max(0, pool.free)),
        money(max(0, pool.transferable)),
    )
    dies = margin.is_liquidatable(pool.equity, pool.maintenance)
    assert dies == (wealth.maintenance > 0 and wealth.equity <= wealth.maintenance)
    report = margin_report(scenario)
    assert len(file["positions"]) == len(report["positions"])
    for given_position, row in zip(file["positions"], report["positions"], strict=True):
        compare_position(scenario, wealth, (given_position["market"], given_position["leg"]), row)


def compare_position(scenario: Scenario, wealth: Wealth, key: tuple[str, str], row: dict[str, Any]) -> None:
    """Check a position's figures, its prices as exact fractions, and what is printed of it."""
    account, holding = scenario.account, wealth.holdings[key]
    market = scenario.state.markets[key[0]]
    leg = next(each for each in account.legs if each.name == key[1])
    position = account.positions[position_key(key[0], leg)]
    tick = Fraction(market.spec.tick_size, 10**8)
    assert (holding.notional, holding.profit, holding.initial, holding.maintenance) == (
        money(abs(margin.position_value(position))),
        money(margin.unrealised(position)),
        money(margin.initial_margin(position)),
        money(margin.maintenance(position)),
    )
    assert holding.contract.bracket(holding.notional) == row["bracket"]
    equity, total = wealth.bucket_equity(key), wealth.bucket_maintenance(key)
    assert equity == money(margin.bucket_equity(account, position))

    expected = wealth.liquidation_price(key)
    found = liquidation_price_of(account, position)
    assert expected == (None if found is None else Fraction(*found) * tick)
    if expected is not None:
        assert 0 == wealth.excess_at(key, expected), "equity meets maintenance at that mark"
        assert found is not None
        assert abs(expected - money(price_amount(found, market.spec.tick_size))) <= UNIT / 2
    assert (expected is None) == (row["liquidation_price"] is None)

    whole = position if position.mode is ISOLATED else None
    share_of = margin.maintenance(position) if whole else margin.survey(account).maintenance
    share = margin.bucket_equity(account, position) * margin.maintenance(position)
    price = Fraction(*bankruptcy_price(position, share, share_of)) * tick
    bankruptcy = wealth.bankruptcy_price(key)
    assert bankruptcy == (price if price > 0 else None)
    assert (bankruptcy is None) == (row["bankruptcy_price"] is None)
    if equity > 0:
        assert 0 <= Fraction(row["margin_ratio"]) - total / equity < UNIT
    else:
        assert row["margin_ratio"] is None


@pytest.mark.soak
@settings(max_examples=ACCOUNTS)
@given(file=accounts(), edge=st.sampled_from((None, None, -1, 0, 1)))
def test_margin_agrees_with_a_second_implementation(file: dict[str, Any], edge: int | None) -> None:
    """Equity, requirements, what is free, and both prices as exact fractions."""
    if edge is not None:
        onto_the_edge(file, edge)
    compare(file)
