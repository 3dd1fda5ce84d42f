"""Messages per second through the order book alone, beside a plain book of dictionaries and heaps.

Both take the same prepared messages, one run of each in turn, and must make the same trades and leave the
same orders. The exchange's book is driven in two ways: by the calls with which the aggregate applies its
events (best, fill, insert, remove), and by `place`, which matches on its own. What the aggregate adds
around the book, events and margin, is not measured here.

A speed is the median of a book's runs. A ratio is the median of the ratios within each round, so that what
slows the machine for a while slows both sides of it.

    python -m bench.book [--messages 2000000] [--rounds 5] [--scenario "steady mid"] [--json]
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable

from bench.flow_gen import CANCEL, IOC, SCENARIOS, Message, messages
from bench.reference_book import ReferenceBook, Trade
from events.values import BUY, SELL
from exchange.aggregate.book import Book, BookOrder

ACCOUNT_ID = 2
# As the writer has it: see exchange/writer.py.
GC_THRESHOLD = (100_000, 50, 100)

# Per side, the best price first: (price in ticks, [(order id, open lots), the oldest first]).
Resting = list[list[tuple[int, list[tuple[int, int]]]]]
# Trades, resting orders, and how long it took to come to them.
Run = tuple[list[Trade], Resting, float]


def run_reference(flow: list[Message]) -> Run:
    """Drive the reference."""
    book = ReferenceBook()
    trades: list[Trade] = []
    start_s = time.perf_counter()
    for kind, order_id, side, price_ticks, lots in flow:
        if kind >= CANCEL:
            book.cancel(order_id)
            if kind == CANCEL:
                continue
        book.place(order_id, side, price_ticks, lots, kind != IOC, trades)
    took_s = time.perf_counter() - start_s
    return trades, [_reference_half(book, BUY), _reference_half(book, SELL)], took_s


def run_calls(flow: list[Message]) -> Run:
    """Drive the exchange's book as the aggregate does: it decides the fills, the book follows."""
    book: Book[BookOrder] = Book()
    orders: dict[int, BookOrder] = {}
    trades: list[Trade] = []
    start_s = time.perf_counter()
    for kind, order_id, side, price_ticks, lots in flow:
        if kind >= CANCEL:
            known = orders.pop(order_id, None)
            if known is not None:
                book.remove(known)
            if kind == CANCEL:
                continue
        order = BookOrder(order_id, ACCOUNT_ID, side, price_ticks, lots)
        opposite = SELL if side is BUY else BUY
        worst_key = -order.key
        while lots:
            maker = book.best(opposite)
            if maker is None or maker.key < worst_key:
                break
            traded = maker.open_lots
            if traded > lots:
                traded = lots
            else:
                del orders[maker.order_id]
            book.fill(maker, traded)
            lots -= traded
            trades.append((maker.order_id, order_id, maker.price_ticks, traded))
        if lots and kind != IOC:
            order.open_lots = lots
            orders[order_id] = order
            book.insert(order)
    took_s = time.perf_counter() - start_s
    return trades, _resting(book), took_s


def run_place(flow: list[Message]) -> Run:
    """Drive the exchange's book alone: it matches."""
    book: Book[BookOrder] = Book()
    orders: dict[int, BookOrder] = {}
    trades: list[Trade] = []
    start_s = time.perf_counter()
    for kind, order_id, side, price_ticks, lots in flow:
        if kind >= CANCEL:
            known = orders.pop(order_id, None)
            if known is not None:
                book.remove(known)
            if kind == CANCEL:
                continue
        order = BookOrder(order_id, ACCOUNT_ID, side, price_ticks, lots)
        for maker, traded in book.place(order, rests=kind != IOC):
            trades.append((maker.order_id, order_id, maker.price_ticks, traded))
            if not maker.open_lots:
                del orders[maker.order_id]
        if order.level is not None:
            orders[order_id] = order
    took_s = time.perf_counter() - start_s
    return trades, _resting(book), took_s


CONTESTANTS: dict[str, Callable[[list[Message]], Run]] = {
    "reference": run_reference,
    "book": run_calls,
    "book, place": run_place,
}


def _reference_half(book: ReferenceBook, side: int) -> list[tuple[int, list[tuple[int, int]]]]:
    queues = book.bids if side is BUY else book.asks
    return [
        (abs(key), [(order_id, lots) for order_id, _, lots in queues[key].values()])
        for key in sorted(queues)
        if queues[key]
    ]


def _resting(book: Book[BookOrder]) -> Resting:
    return [
        [
            (abs(level.key), [(order.order_id, order.open_lots) for order in level])
            for level in half.best_first()
        ]
        for half in (book.bids, book.asks)
    ]


def measure(flow: list[Message], rounds: int) -> dict[str, list[float]]:
    """Return the messages per second of each contestant in each round. AssertionError if they differ."""
    speeds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        expected: tuple[list[Trade], Resting] | None = None
        for name, run in CONTESTANTS.items():
            gc.collect()
            trades, resting, took_s = run(flow)
            if expected is None:
                expected = trades, resting
            assert expected == (trades, resting), f"{name} differs from the reference"
            speeds[name].append(len(flow) / took_s)
    return speeds


def report(name: str, flow: list[Message], rounds: int) -> dict[str, object]:
    """Measure one scenario and return its row."""
    trades, resting, _ = run_reference(flow)
    speeds = measure(flow, rounds)
    against = speeds["reference"]
    return {
        "scenario": name,
        "messages": len(flow),
        "trades": len(trades),
        "resting": sum(len(orders) for half in resting for _, orders in half),
        "messages_per_s": {each: round(statistics.median(speeds[each])) for each in speeds},
        "ratios": {
            each: round(statistics.median(a / b for a, b in zip(speeds[each], against, strict=True)), 3)
            for each in speeds
            if each != "reference"
        },
    }


def print_table(rows: Iterable[dict[str, object]]) -> None:
    """Print rows as they come."""
    print(f"{'scenario':14}{'messages':>10}{'trades':>9}{'resting':>9}", end="")
    print("".join(f"{name + '/s':>16}" for name in CONTESTANTS), f"{'ratio':>8}{'place':>8}")
    for row in rows:
        speeds, ratios = row["messages_per_s"], row["ratios"]
        assert isinstance(speeds, dict)
        assert isinstance(ratios, dict)
        print(f"{row['scenario']:14}{row['messages']:>10}{row['trades']:>9}{row['resting']:>9}", end="")
        print("".join(f"{speeds[name]:>16,}" for name in CONTESTANTS), end=" ")
        print("".join(f"{ratio:>8.2f}" for ratio in ratios.values()), flush=True)


def main() -> None:
    """Run the scenarios and print what came out."""
    parser = argparse.ArgumentParser(description="Messages per second through the order book alone.")
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenario", choices=[each.name for each in SCENARIOS], help="only this one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    gc.set_threshold(*GC_THRESHOLD)
    chosen = [each for each in SCENARIOS if options.scenario in (None, each.name)]

    def rows() -> Iterable[dict[str, object]]:
        for scenario in chosen:
            flow = messages(scenario, options.messages)
            gc.collect()
            gc.freeze()
            yield report(scenario.name, flow, options.rounds)
            gc.unfreeze()

    if options.json:
        json.dump(list(rows()), sys.stdout, indent=2)
        print()
    else:
        print_table(rows())


if __name__ == "__main__":
    main()
