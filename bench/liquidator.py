"""The liquidator's watch at scale: what a mark change, a fill, a settlement of funding and a crash cost it.

100,000 accounts hold 300,000 positions in 20 markets, half of them isolated at leverages of 2 to 20. A pool
has what it needs to survive the walk of part 1 and a little more: where longs and shorts balance that is
little, and its alarms are close. The state is written directly: pairs of accounts get opposite positions at
the same price, as if they had traded with each other, and deposits to match; sending the commands that lead
there would take longer than all that is measured. Both identities are counted before and after. Everything
else is decided by the real aggregate, in frames, and the watch follows its events; what is timed is the
watch alone unless said otherwise.

 1. Mark changes that liquidate nobody: a common walk of all markets and one of each, within 3 %.
 2. A look at every account at the same state, for comparison; its result must be the same.
 3. Fills between random accounts.
 4. A settlement of funding in each market.
 5. A fall of all markets at once, as deep as makes one account in ten due, drained completely: each request
    decided, and the position sold into bids for a tenth of the open interest or taken over by the fund.

    python -m bench.liquidator [--accounts 100000] [--positions 300000] [--markets 20] [--json]
"""

import argparse
import gc
import json
import os
import statistics
import time
from pathlib import Path
from random import Random

import msgspec

from events.commands import (
    AllotInsurance,
    AnyCommand,
    CancelAllOrders,
    CreateLog,
    Deposit,
    Liquidate,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
)
from events.events import Event, FundingSettled, LiquidationFinished, TradeExecuted
from events.frame import close_command_frame
from events.values import CROSS, ISOLATED, IndexSource, LiquidationResult, OrderType, Side
from exchange.aggregate.account import FIRST_USER_ACCOUNT_ID, FUND_ACCOUNT_ID, Account
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.market import Market
from exchange.aggregate.posting import hold, long_lots
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import MONEY_ONE, ceil_div
from exchange.intake.specs import DEFAULT_SPECS
from exchange.watch import Bucket, Watch
from tests.full_scan import find_liquidatable

SEED = 4
START_NS = 1_700_000_000 * 10**9
NS_PER_S = 10**9
START_TICKS = 500_000
LEVERAGES = (2, 3, 5, 10, 20)
POOL_LEVERAGE = 100
MAINTENANCE_RATE_MAX = 0.005  # of positions as large as these
NOTIONALS = (100, 1_000, 10_000, 100_000)  # quote
POOL_SPARE = (1.02, 2.0)  # a pool has so many times what it needs
WALLET_SPARE = 0.1  # of isolated positions' value, that lies in the wallet
MARK_CHANGES = 10_000
COMMON_STEP, OWN_STEP = 0.0002, 0.0005  # standard deviations
COMMON_BOUND, OWN_BOUND = 0.02, 0.01
SCANS = 3
FILLS = 2_000
FILL_NOTIONAL = 200  # quote
BURST_FALL_MAX = 0.5
REQUESTS_PER_FRAME = 64
BIDS = 50
BID_SHARE = 0.1  # of the open interest, that rests in the book when the fall comes


class CountingWatch(Watch):
    """A watch that counts how many accounts it reviews."""

    reviews = 0

    def _review(self, account: Account) -> list[Bucket]:
        self.reviews += 1
        return super()._review(account)


class Venue:
    """The exchange under measurement: a state, frames decided on it, and the watch that follows."""

    def __init__(self, random: Random, markets: int) -> None:
        self.random = random
        self.state = Exchange()
        self.now_ns = START_NS
        self.watch: CountingWatch | None = None
        self.watch_ns = 0
        self.accounts = 0
        self.symbols = [f"M{n:02}USDT" for n in range(markets)]
        self.send([CreateLog(log_id="0" * 32, rules_version=1)])
        # With a lower highest price, so that twenty markets fit what all of them together may hold.
        most_ticks = DEFAULT_SPECS[0].max_price_ticks // 4
        spec = msgspec.structs.replace(DEFAULT_SPECS[0], max_price_ticks=most_ticks)
        self.send([ListMarket(spec=msgspec.structs.replace(spec, symbol=symbol)) for symbol in self.symbols])
        self.send([index_price(symbol, START_TICKS) for symbol in self.symbols])

    def send(self, commands: list[AnyCommand]) -> list[Event]:
        """Decide a frame, let the watch follow its events, and return them; `watch_ns` is what that took."""
        n = self.state.seq + 1
        self.now_ns += 1_000
        frame = close_command_frame("bench:" + "0" * 32, n, self.now_ns, commands)
        groups = decide_frame(self.state, n, frame, self.now_ns)
        events = [event for group in groups for event in group]
        if self.watch is not None:
            follow = self.watch.follow
            start_ns = time.perf_counter_ns()
            for event in events:
                follow(event)
            self.watch_ns = time.perf_counter_ns() - start_ns
        return events

    def look(self) -> list[Bucket]:
        """Look with the watch; its time is added to `watch_ns`."""
        assert self.watch is not None
        start_ns = time.perf_counter_ns()
        due = self.watch.look()
        self.watch_ns += time.perf_counter_ns() - start_ns
        return due


def index_price(symbol: str, price_ticks: int) -> SetIndexPrice:
    """Return the command that reports a price."""
    return SetIndexPrice(market=symbol, sources=(IndexSource(source="b", price_ticks=price_ticks, raw=""),))


# The state


def populate(venue: Venue, accounts: int, positions: int) -> int:
    """Write accounts with positions into the state; return how many positions that are.

    A market with an odd number of holders loses one.
    """
    state, random = venue.state, venue.random
    first_id = state.next_account_id
    for account_id in range(first_id, first_id + accounts):
        state.accounts[account_id] = Account(account_id, "")
    state.next_account_id += accounts
    venue.accounts = accounts
    holders: dict[str, list[int]] = {symbol: [] for symbol in venue.symbols}
    for n in range(accounts):
        count = positions * (n + 1) // accounts - positions * n // accounts
        for symbol in random.sample(venue.symbols, count):
            holders[symbol].append(first_id + n)
    written = 0
    for symbol, account_ids in holders.items():
        market = state.markets[symbol]
        random.shuffle(account_ids)
        for long_id, short_id in zip(account_ids[::2], account_ids[1::2], strict=False):
            lots = max(1, random.choice(NOTIONALS) * MONEY_ONE // (START_TICKS * market.unit))
            write_position(venue, market, state.accounts[long_id], lots)
            write_position(venue, market, state.accounts[short_id], -lots)
            written += 2
    for account_id in range(first_id, first_id + accounts):
        fill_wallet(venue, state.accounts[account_id])
    state.check_identities()
    return written


def write_position(venue: Venue, market: Market, account: Account, size_lots: int) -> None:
    """Write an open position at the start price; an isolated one with its bucket."""
    position = account.stored_position(market)
    position.size_lots = size_lots
    position.entry_cost = size_lots * START_TICKS * market.unit
    market.open_interest_lots += long_lots(position)
    hold(market, account, position)
    position.mode = venue.random.choice((CROSS, ISOLATED))
    position.leverage = POOL_LEVERAGE
    if position.mode is ISOLATED:
        position.leverage = venue.random.choice(LEVERAGES)
        position.bucket = ceil_div(abs(position.entry_cost), position.leverage)
        venue.state.deposited += position.bucket


def fill_wallet(venue: Venue, account: Account) -> None:
    """Deposit what an account's pool needs wherever the walk goes, and more."""
    costs = [p.entry_cost for p in account.positions.values() if p.mode is CROSS]
    net, gross = abs(sum(costs)), sum(abs(cost) for cost in costs)
    needed = net * COMMON_BOUND + gross * (OWN_BOUND + MAINTENANCE_RATE_MAX)
    others = sum(abs(p.entry_cost) for p in account.positions.values()) - gross
    account.wallet = int(needed * venue.random.uniform(*POOL_SPARE) + others * WALLET_SPARE)
    venue.state.deposited += account.wallet


def endow_fund(venue: Venue) -> None:
    """Give the insurance fund an allotment in each market that bears every takeover."""
    amount = 10**9 * MONEY_ONE
    venue.send([Deposit(account_id=FUND_ACCOUNT_ID, amount=amount * len(venue.symbols))])
    venue.send([AllotInsurance(market=symbol, amount=amount) for symbol in venue.symbols])


# What is measured


def measure_build(venue: Venue) -> dict[str, float]:
    """Build the watch; return the seconds and the memory it took."""
    before = resident_bytes()
    start_ns = time.perf_counter_ns()
    venue.watch = CountingWatch(venue.state)
    assert venue.watch.look() == []
    seconds = (time.perf_counter_ns() - start_ns) / NS_PER_S
    return {"build_s": round(seconds, 2), "memory_mb": round((resident_bytes() - before) / 1e6)}


def measure_marks(venue: Venue) -> dict[str, float]:
    """Let the marks walk; return the time of the watch for each change, in microseconds."""
    random = venue.random
    times: list[int] = []
    assert venue.watch is not None
    reviews_before = venue.watch.reviews
    common, own = 0.0, dict.fromkeys(venue.symbols, 0.0)
    for n in range(MARK_CHANGES):
        symbol = venue.symbols[n % len(venue.symbols)]
        common = step(common, random.gauss(0, COMMON_STEP), COMMON_BOUND)
        own[symbol] = step(own[symbol], random.gauss(0, OWN_STEP), OWN_BOUND)
        venue.send([index_price(symbol, int(START_TICKS * (1 + common + own[symbol])))])
        assert venue.look() == []
        times.append(venue.watch_ns)
    reviews = venue.watch.reviews - reviews_before
    times_us = {f"mark_us_{name}": value for name, value in distribution(times).items()}
    return {**times_us, "mark_changes": MARK_CHANGES, "mark_reviews": reviews}


def step(value: float, change: float, bound: float) -> float:
    """Return the next value of a walk that turns at its bounds."""
    return value + change if abs(value + change) <= bound else value - change


def measure_scan(venue: Venue) -> dict[str, float]:
    """Look at every account after a mark change; return the time in microseconds."""
    times = []
    for symbol in venue.symbols[:SCANS]:
        venue.send([index_price(symbol, venue.state.markets[symbol].index_ticks + 1)])
        venue.look()
        start_ns = time.perf_counter_ns()
        assert find_liquidatable(venue.state) == []
        times.append(time.perf_counter_ns() - start_ns)
    return {"full_scan_us": round(statistics.median(times) / 1e3)}


def measure_fills(venue: Venue) -> dict[str, float]:
    """Let random accounts trade with each other; return the time of the watch for each fill."""
    random, state = venue.random, venue.state
    times: list[int] = []
    while len(times) < FILLS:
        symbol = random.choice(venue.symbols)
        maker_id, taker_id = random.sample(range(FIRST_USER_ACCOUNT_ID, state.next_account_id), 2)
        mark_ticks = state.markets[symbol].mark_ticks
        lots = max(1, FILL_NOTIONAL * MONEY_ONE // (mark_ticks * state.markets[symbol].unit))
        orders: list[AnyCommand] = [
            limit_order(maker_id, symbol, Side.SELL, lots, mark_ticks),
            limit_order(taker_id, symbol, Side.BUY, lots, mark_ticks),
        ]
        events = venue.send(orders)
        venue.look()
        if any(isinstance(event, TradeExecuted) for event in events):
            times.append(venue.watch_ns)
        venue.send([CancelAllOrders(account_id=n, market=symbol) for n in (maker_id, taker_id)])
    return {f"fill_us_{name}": value for name, value in distribution(times).items()}


def measure_funding(venue: Venue) -> dict[str, float]:
    """Settle funding in every market at once; return the stalls of the aggregate and of the watch."""
    assert venue.watch is not None
    venue.now_ns = max(market.next_funding_ns for market in venue.state.markets.values())
    decided, watched = [], []
    for symbol in venue.symbols:
        command = index_price(symbol, venue.state.markets[symbol].index_ticks)
        start_ns = time.perf_counter_ns()
        events = venue.send([command])
        decided.append(time.perf_counter_ns() - start_ns - venue.watch_ns)
        watched.append(venue.watch_ns)
        assert any(isinstance(event, FundingSettled) for event in events)
    while venue.watch.charged:
        venue.watch_ns = 0
        venue.look()
        watched.append(venue.watch_ns)
    return {
        "funding_aggregate_ms_max": round(max(decided) / 1e6, 1),
        "funding_aggregate_s_all_markets": round(sum(decided) / NS_PER_S, 2),
        "funding_watch_ms_max": round(max(watched) / 1e6, 1),
        "funding_watch_s_all_markets": round(sum(watched) / NS_PER_S, 2),
    }


def measure_burst(venue: Venue) -> dict[str, float]:
    """Let all markets fall at once and drain what is due; return the seconds of the whole and its parts."""
    marks = {symbol: venue.state.markets[symbol].mark_ticks for symbol in venue.symbols}
    wanted = venue.accounts // 10
    fall = fall_for(venue.state, marks, wanted * 11 // 10)  # the marks follow to 0.01 % or so
    lower = {symbol: int(ticks * (1 - fall)) for symbol, ticks in marks.items()}
    place_bids(venue, lower)
    start_ns = time.perf_counter_ns()
    venue.send([index_price(symbol, ticks) for symbol, ticks in lower.items()])
    watch_ns = venue.watch_ns
    due = venue.look()
    found, find_ns = len(due), venue.watch_ns - watch_ns
    watch_ns = venue.watch_ns
    results: list[LiquidationResult] = []
    while due:
        for n in range(0, len(due), REQUESTS_PER_FRAME):
            requests: list[AnyCommand] = [
                Liquidate(account_id=account_id, market=market, cause_seq=venue.state.seq, leg=leg)
                for account_id, market, leg in due[n : n + REQUESTS_PER_FRAME]
            ]
            events = venue.send(requests)
            results.extend(event.result for event in events if isinstance(event, LiquidationFinished))
            watch_ns += venue.watch_ns
        venue.watch_ns = 0
        due = venue.look()
        watch_ns += venue.watch_ns
    seconds = (time.perf_counter_ns() - start_ns) / NS_PER_S
    assert found >= wanted, (found, wanted)
    assert find_liquidatable(venue.state) == []
    counts = {f"burst_{r.name.lower()}": results.count(r) for r in LiquidationResult if r in results}
    return {
        "burst_fall": round(fall, 4),
        "burst_buckets": found,
        "burst_s": round(seconds, 2),
        "burst_find_s": round(find_ns / NS_PER_S, 2),
        "burst_watch_s": round(watch_ns / NS_PER_S, 2),
        **counts,
    }


def fall_for(state: Exchange, marks: dict[str, int], wanted: int) -> float:
    """Return how far all marks must fall to make at least `wanted` buckets due; they stay as they are."""
    low, high = 0.0, BURST_FALL_MAX
    while high - low > 0.0002:
        middle = (low + high) / 2
        for symbol, ticks in marks.items():
            state.markets[symbol].mark_ticks = int(ticks * (1 - middle))
        is_enough = len(find_liquidatable(state)) >= wanted
        low, high = (low, middle) if is_enough else (middle, high)
    for symbol, ticks in marks.items():
        state.markets[symbol].mark_ticks = ticks
    return high


def place_bids(venue: Venue, marks: dict[str, int]) -> None:
    """Let one rich account bid below the marks to come, for a part of the open interest."""
    maker_id = venue.state.next_account_id
    venue.send([OpenAccount(), Deposit(account_id=maker_id, amount=10**9 * MONEY_ONE)])
    for symbol, ticks in marks.items():
        lots = int(venue.state.markets[symbol].open_interest_lots * BID_SHARE / BIDS)
        bids: list[AnyCommand] = [
            limit_order(maker_id, symbol, Side.BUY, lots, ticks - n) for n in range(1, BIDS + 1)
        ]
        venue.send(bids)
        assert venue.state.markets[symbol].book.best_bid_ticks == ticks - 1, "the bids were refused"


def limit_order(account_id: int, symbol: str, side: Side, lots: int, price_ticks: int) -> PlaceOrder:
    """Return the command for a limit order."""
    return PlaceOrder(
        account_id=account_id,
        market=symbol,
        side=side,
        order_type=OrderType.LIMIT,
        quantity_lots=lots,
        price_ticks=price_ticks,
    )


def distribution(times_ns: list[int]) -> dict[str, float]:
    """Return median, mean, 99th percentile and maximum in microseconds."""
    ordered = sorted(times_ns)
    return {
        "median": round(statistics.median(ordered) / 1e3, 1),
        "mean": round(statistics.mean(ordered) / 1e3, 1),
        "p99": round(ordered[len(ordered) * 99 // 100] / 1e3, 1),
        "max": round(ordered[-1] / 1e3, 1),
    }


def resident_bytes() -> int:
    """Return the memory this process occupies."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


MEASURES = (measure_build, measure_marks, measure_scan, measure_fills, measure_funding, measure_burst)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--positions", type=int, default=300_000)
    parser.add_argument("--markets", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    venue = Venue(Random(SEED), options.markets)
    result: dict[str, float] = {"accounts": options.accounts, "markets": options.markets}
    result["positions"] = populate(venue, options.accounts, options.positions)
    endow_fund(venue)
    gc.collect()
    gc.freeze()  # what lives for good is not searched for garbage again and again
    for measure in (
        measure_build,
        measure_marks,
        measure_scan,
        measure_fills,
        measure_funding,
        measure_burst,
    ):
        result |= measure(venue)
    venue.state.check_identities()
    result["full_scan_to_mark_median"] = round(result["full_scan_us"] / result["mark_us_median"])
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    main()
