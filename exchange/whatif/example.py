"""The log of a small story to try what-if on: the same bytes every time, numbers one can check in the head.

Three markets without fees, and a house that takes every other side. Leverage is 10 everywhere.

- ida (3) has 2,500 and buys 0.1 BTC at 50,000, isolated: 500 stand behind it.
- carl (4) has 1,500 and buys 5,000 worth each of BTC, ETH and SOL, cross.
- tess (5) has 1,000 and buys 0.1 BTC as ida does, to sell at 51,000.

BTC falls to 45,150, comes back to 51,000, falls to 35,500 and ends at 52,000; nothing else moves. At 45,150
a loss of 485 leaves 15 of 500, for 18.06 of maintenance: ida and tess are out. At 35,500 carl's pool has 50
left for 54.20: he loses all three, though two of them never moved.
"""

from events.commands import (
    AllotInsurance,
    AnyCommand,
    CreateLog,
    Deposit,
    Liquidate,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
    SetLeverage,
)
from events.frame import (
    GENESIS_HASH,
    SCHEMA_VERSION,
    EventEntry,
    chain_hash,
    close_command_frame,
    encode_groups,
)
from events.log import CommandEntry
from events.memory import MemoryLog
from events.values import GTC, IOC, ISOLATED, LIMIT, IndexSource, MarginMode, MarketSpec, Side
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.decide import decide_frame
from exchange.aggregate.state import RULES_VERSION, Exchange
from exchange.archiving import export_log
from exchange.decimals import parse_lots, parse_money, parse_price
from exchange.intake.specs import BracketForm, MarketForm, market_spec
from exchange.watch import Watch

LOG_ID = "e" * 32
START_NS = 1_760_131_200 * 10**9  # 2025-10-10 21:20 UTC
STEP_NS = 10**9
LAG_ENTRIES = 2
HOUSE, IDA, CARL, TESS = 2, 3, 4, 5
BTC, ETH, SOL = "BTCUSDT", "ETHUSDT", "SOLUSDT"
OPENING = {BTC: "50000", ETH: "2500", SOL: "100"}
SIZES = {BTC: "0.1", ETH: "2", SOL: "50"}
BTC_PATH = ("48000", "45150", "47000", "50000", "51000")
BTC_CRASH = ("45000", "40000", "36000", "35500", "40000", "52000")


class _Story:
    """A log being written, with a liquidator whose requests come two entries after their cause."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self._state = Exchange()
        self._watch = Watch(self._state)
        self._hash = GENESIS_HASH

    def send(self, name: str, *commands: AnyCommand) -> None:
        """Add an entry, and what the liquidator asks for because of it."""
        seq = self._add(name, commands)
        due = self._watch.look()
        if due:
            for _ in range(LAG_ENTRIES - 1):
                self._add("story", ())
            requests = [
                Liquidate(account_id=account_id, market=market, cause_seq=seq, leg=leg)
                for account_id, market, leg in due
            ]
            self.send("liquidator", *requests)

    def _add(self, name: str, commands: tuple[AnyCommand, ...]) -> int:
        seq = self._state.seq + 1
        origin = f"{name}:{'e' * 32}"
        n = 1 + sum(entry.frame.origin == origin for entry in self.log.commands)
        now_ns = START_NS + seq * STEP_NS
        frame = close_command_frame(origin, n, now_ns, commands)
        groups = decide_frame(self._state, seq, frame, now_ns)
        for group in groups:
            for event in group:
                self._watch.follow(event)
        body = encode_groups(groups)
        self._hash = chain_hash(LOG_ID, self._hash, seq, SCHEMA_VERSION, frame.checksum, body)
        self.log.commands.append(CommandEntry(seq=seq, frame=frame))
        self.log.events.append(
            EventEntry(seq=seq, schema=SCHEMA_VERSION, body=body, chain_hash=self._hash, writer="example:1")
        )
        return seq

    def index(self, symbol: str, price: str) -> None:
        """Let an index move."""
        spec = self._state.markets[symbol].spec
        source = IndexSource(source="example", price_ticks=parse_price(spec, price), raw=price)
        self.send("feed", SetIndexPrice(market=symbol, sources=(source,)))

    def order(
        self, account_id: int, side: Side, symbol: str, price: str, mode: MarginMode | None, *, rests: bool
    ) -> None:
        """Place an order of the market's usual size; one that neither rests nor has a mode only closes."""
        spec = self._state.markets[symbol].spec
        self.send(
            "intake",
            PlaceOrder(
                account_id=account_id,
                market=symbol,
                side=side,
                order_type=LIMIT,
                quantity_lots=parse_lots(spec, SIZES[symbol]),
                price_ticks=parse_price(spec, price),
                time_in_force=GTC if rests else IOC,
                reduce_only=not rests and mode is None,
                margin_mode=mode,
            ),
        )

    def buy(self, account_id: int, symbol: str, mode: MarginMode) -> None:
        """Let somebody buy from the house at the opening price."""
        self.order(HOUSE, Side.SELL, symbol, OPENING[symbol], None, rests=True)
        self.order(account_id, Side.BUY, symbol, OPENING[symbol], mode, rests=False)


def example_log() -> MemoryLog:
    """Return the story's log."""
    story = _Story()
    story.send("genesis", CreateLog(log_id=LOG_ID, rules_version=RULES_VERSION))
    story.send("intake", *(ListMarket(spec=_spec(symbol)) for symbol in OPENING))
    fund = parse_money("100000")
    story.send("intake", Deposit(account_id=FUND_ACCOUNT_ID, amount=3 * fund))
    story.send("intake", *(AllotInsurance(market=symbol, amount=fund) for symbol in OPENING))
    deposits = {HOUSE: "10000000", IDA: "2500", CARL: "1500", TESS: "1000"}
    for (account_id, amount), label in zip(deposits.items(), ("house", "ida", "carl", "tess"), strict=True):
        story.send("intake", OpenAccount(label=label))
        story.send("intake", Deposit(account_id=account_id, amount=parse_money(amount)))
        settings = [SetLeverage(account_id=account_id, market=symbol, leverage=10) for symbol in OPENING]
        story.send("intake", *settings)
    for symbol, price in OPENING.items():
        story.index(symbol, price)
    story.buy(IDA, BTC, ISOLATED)
    for symbol in OPENING:
        story.buy(CARL, symbol, MarginMode.CROSS)
    story.buy(TESS, BTC, ISOLATED)
    for price in BTC_PATH:
        story.index(BTC, price)
    story.order(HOUSE, Side.BUY, BTC, BTC_PATH[-1], None, rests=True)
    story.order(TESS, Side.SELL, BTC, BTC_PATH[-1], None, rests=False)
    for price in BTC_CRASH:
        story.index(BTC, price)
    return story.log


async def write_example(target: str) -> int:
    """Write the story's log as an archive to a directory or a .tar file; return its last entry.

    Raises:
        ArchiveError, ArchiveMismatchError: the target cannot be used, or holds another log.
    """
    return (await export_log(example_log(), target)).seq


def _spec(symbol: str) -> MarketSpec:
    return market_spec(
        MarketForm(
            symbol=symbol,
            base=symbol.removesuffix("USDT"),
            quote="USDT",
            tick_size="0.01",
            lot_size="0.001",
            min_price="1",
            max_price="500000",
            min_quantity="0.001",
            max_quantity="10000",
            min_notional="5",
            maker_fee="0",
            taker_fee="0",
            liquidation_fee="0",
            mark_band="0.003",
            take_bound="0.05",
            band_up="0.5",
            band_down="0.5",
            max_market_quantity="10000",
            max_open_orders=200,
            max_conditional_orders=10,
            max_position="10000",
            max_open_interest="20000",
            unwind_quantity="1",
            brackets=[
                BracketForm(cap="50000", maintenance_rate="0.004", max_leverage=125),
                BracketForm(cap="600000", maintenance_rate="0.005", max_leverage=100),
            ],
        )
    )
