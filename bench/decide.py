"""decide + apply + frame encoding: how many commands a second the rules take, without a log or processes.

1,000 accounts in two markets; 55 % place, 35 % cancel, 10 % amend; about one place in ten trades. Margin is
checked and asserts are on. The commands are made beforehand by one untimed run, so that every timed run
decides the very same bytes; its events must hash the same. The yardstick is the reference book of
`bench.book`, fed its steady flow in the same run.

    python -m bench.decide [--commands 200000] [--rounds 5] [--json]
"""

import argparse
import gc
import hashlib
import json
import statistics
import time
from random import Random

from bench.book import run_reference
from bench.flow_gen import SCENARIOS, messages
from events.commands import (
    AmendOrder,
    AnyCommand,
    CancelOrder,
    CreateLog,
    Deposit,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
)
from events.frame import CommandFrame, close_command_frame, encode_groups
from events.values import IndexSource, OrderType, Side
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.state import Exchange
from exchange.intake.specs import DEFAULT_SPECS
from exchange.runtime import GC_THRESHOLD

ACCOUNTS = 1_000
FRAME = 64
YARDSTICK_MESSAGES = 200_000
NOW_NS = 1_700_000_000 * 10**9
MONEY = 10**8
PRICES = {"BTCUSDT": 500_000, "ETHUSDT": 300_000}


class Flow:
    """Makes commands against a state that decides them as they come, so that they name open orders."""

    def __init__(self, seed: int = 1) -> None:
        self.state = Exchange()
        self.random = Random(seed)
        self.frames: list[CommandFrame] = []
        self.send([CreateLog(log_id="0" * 32, rules_version=1)])
        self.send([ListMarket(spec=spec) for spec in DEFAULT_SPECS])
        self.send(
            [
                SetIndexPrice(market=symbol, sources=(IndexSource(source="b", price_ticks=ticks, raw=""),))
                for symbol, ticks in PRICES.items()
            ]
        )
        self.send([OpenAccount() for _ in range(ACCOUNTS)])
        self.send([Deposit(account_id=2 + n, amount=100_000 * MONEY) for n in range(ACCOUNTS)])

    def send(self, commands: list[AnyCommand]) -> None:
        """Close a frame, keep it, and decide it."""
        n = len(self.frames) + 1
        frame = close_command_frame("bench:" + "0" * 32, n, NOW_NS + n, commands)
        self.frames.append(frame)
        decide_frame(self.state, n, frame, NOW_NS + n)

    def command(self) -> AnyCommand:
        """Return the next command of the mix."""
        random = self.random
        account_id = 2 + random.randrange(ACCOUNTS)
        chance = random.random()
        account = self.state.accounts[account_id]
        order = None
        if chance >= 0.55 and account.orders:
            order = account.orders[random.choice(list(account.orders))]
        if order is None:
            return self._place(account_id)
        market = order.terms.market
        if chance < 0.90:
            return CancelOrder(account_id=account_id, market=market, order_id=order.order_id)
        return AmendOrder(
            account_id=account_id,
            market=market,
            side=order.side,
            order_id=order.order_id,
            quantity_lots=order.quantity_lots + 1,
            price_ticks=order.price_ticks - order.side * random.randrange(5),
        )

    def _place(self, account_id: int) -> PlaceOrder:
        random = self.random
        market = random.choice(tuple(PRICES))
        side = random.choice((Side.BUY, Side.SELL))
        away = random.randrange(-40, 0) if random.random() < 0.1 else random.randrange(1, 2_000)
        return PlaceOrder(
            account_id=account_id,
            market=market,
            side=side,
            order_type=OrderType.LIMIT,
            quantity_lots=random.randrange(10, 60),
            price_ticks=PRICES[market] - side * away,
        )


def make_frames(count: int) -> tuple[list[CommandFrame], int, int]:
    """Return all frames, how many of them only prepare, and how many trades there are."""
    flow = Flow()
    prepared = len(flow.frames)
    for _ in range(count // FRAME):
        flow.send([flow.command() for _ in range(FRAME)])
    return flow.frames, prepared, flow.state.trade_count


def run(frames: list[CommandFrame], prepared: int) -> tuple[float, str]:
    """Decide all frames; return the commands a second after the prepared ones, and the hash of all events."""
    state = Exchange()
    digest = hashlib.blake2b()
    for n, frame in enumerate(frames[:prepared], 1):
        digest.update(encode_groups(decide_frame(state, n, frame, NOW_NS + n)))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)  # as the writer does
    bodies = []
    start_ns = time.perf_counter_ns()
    for n, frame in enumerate(frames[prepared:], prepared + 1):
        bodies.append(encode_groups(decide_frame(state, n, frame, NOW_NS + n)))
    seconds = (time.perf_counter_ns() - start_ns) / 1e9
    gc.unfreeze()
    for body in bodies:
        digest.update(body)
    return (len(frames) - prepared) * FRAME / seconds, digest.hexdigest()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--commands", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    frames, prepared, trades = make_frames(options.commands)
    yardstick = messages(SCENARIOS[0], YARDSTICK_MESSAGES)
    rates, ratios, digests = [], [], set()
    for _ in range(options.rounds):
        reference = len(yardstick) / run_reference(yardstick)[2]
        rate, digest = run(frames, prepared)
        rates.append(rate)
        ratios.append(rate / reference)
        digests.add(digest)
    assert len(digests) == 1, "the same commands gave other events"
    result = {
        "commands": options.commands,
        "trades": trades,
        "commands_per_s": round(statistics.median(rates)),
        "commands_per_s_best": round(max(rates)),
        "ratio_to_reference_book": round(statistics.median(ratios), 4),
        "digest": digests.pop(),
    }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:26} {value}")


if __name__ == "__main__":
    main()
