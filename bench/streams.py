"""What market data costs an intake: the past of the markets, and streams that nobody or somebody reads.

The events of `bench.decide`'s flow are applied as an intake does, one command an entry, and what follows an
entry is added step by step: the past alone; a hub whose streams nobody reads; one whose streams are all read,
flushed as often as at 2,000 entries a second. Each is given as a multiple of applying alone in the same run;
sockets are not part of it.

    python -m bench.streams [--commands 20000] [--rounds 3] [--json]
"""

import argparse
import gc
import json
import statistics
import time
from typing import Any

from bench.decide import NOW_NS, PRICES, Flow
from events.frame import Groups
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.state import Exchange
from exchange.intake.market.past import Past
from exchange.intake.streams.market import MarketStreams

ENTRIES_PER_S = 2_000
TAILS = (
    "depth@100ms",
    "depth20@100ms",
    "bookTicker",
    "trade",
    "aggTrade",
    "kline_1m",
    "ticker",
    "markPrice@1s",
)
# What is sent at once waits this long for what comes together.
SOON_S = 0.005


class Reader:
    """What streams need to know of an intake; as a subscriber, one that counts what it is sent."""

    def __init__(self, state: Exchange) -> None:
        self.is_combined = False
        self.state = state
        self.now_ms = NOW_NS // 10**6
        self.markets_past = Past(lambda: state)
        self.sent = 0

    def send(self, payload: bytes) -> None:
        """Count a message."""
        self.sent += 1


def make_entries(count: int) -> tuple[list[Groups], int]:
    """Return the events of each entry, and how many of them only prepare."""
    flow = Flow()
    prepared = len(flow.frames)
    for _ in range(count):
        flow.send([flow.command()])
    state = Exchange()
    entries = [decide_frame(state, n, frame, NOW_NS + n) for n, frame in enumerate(flow.frames, 1)]
    return entries, prepared


def run(entries: list[Groups], prepared: int, step: str) -> tuple[float, int]:
    """Apply all entries; return the CPU seconds for those behind the prepared ones, and what was sent."""
    state = Exchange()
    reader: Any = Reader(state)
    for groups in entries[:prepared]:
        for group in groups:
            for event in group:
                state.apply(event)
        reader.markets_past.feed(groups)
    streams = MarketStreams(reader)
    channels = []
    if step == "all read":
        names = [f"{symbol.lower()}@{tail}" for symbol in PRICES for tail in TAILS]
        channels = [channel for name in names if (channel := streams.channel(name)) is not None]
        assert len(channels) == len(names)
        for channel in channels:
            channel.join(reader)
    every = [max(1, round(ENTRIES_PER_S * (channel.period_s or SOON_S))) for channel in channels]
    gc.collect()
    start_ns = time.process_time_ns()
    for n, groups in enumerate(entries[prepared:]):
        for group in groups:
            for event in group:
                state.apply(event)
        if step != "apply":
            reader.markets_past.feed(groups)
        if step in ("nobody reads", "all read"):
            streams.feed(groups)
            for channel, entries_between in zip(channels, every, strict=True):
                if n % entries_between == 0:
                    channel.flush()
                    channel.is_fresh = False
    return (time.process_time_ns() - start_ns) / 1e9, reader.sent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    entries, prepared = make_entries(options.commands)
    ratios: dict[str, list[float]] = {"the past": [], "nobody reads": [], "all read": []}
    apply_us, sent = [], 0
    for _ in range(options.rounds):
        alone_s, _ = run(entries, prepared, "apply")
        apply_us.append(alone_s / options.commands * 1e6)
        for step, found in ratios.items():
            seconds, sent = run(entries, prepared, step)
            found.append(seconds / alone_s)
    result: dict[str, object] = {
        "commands": options.commands,
        "apply_us_per_entry": round(statistics.median(apply_us), 1),
        **{
            f"{step.replace(' ', '_')}_ratio_to_apply": round(statistics.median(found), 2)
            for step, found in ratios.items()
        },
        "messages_of_all": sent,
    }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
