"""An intake over real sockets on a log that a test writes itself, entry by entry, as a writer would."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

from events.commands import AnyCommand, ListMarket, OpenAccount, PlaceOrder, SetIndexPrice
from events.memory import MemoryLog
from events.values import IndexSource, MarketSpec, OrderType, Side, TimeInForce
from exchange.intake.front import Front
from exchange.intake.gate import Gate
from exchange.intake.keys import KeyRing
from exchange.intake.limits import DEFAULT_LIMITS, Limits
from exchange.intake.listener import FrontServer, ListenerLimits
from exchange.intake.service import Intake
from exchange.intake.streams.connection import StreamLimits
from exchange.intake.streams.front import PATHS, StreamFront
from tests.recorded import Recorded
from tests.venue import spec
from tests.waiting import until

DEADLINE_S = 20.0


class Socket:
    """A client's WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def next(self) -> Any:
        """Return the next message."""
        async with asyncio.timeout(DEADLINE_S):
            return json.loads(await self.socket.receive_str())

    async def event(self, kind: str) -> Any:
        """Return the next message of a kind, bare or wrapped, and drop what comes before it."""
        while True:
            message = await self.next()
            payload = message.get("data", message) if isinstance(message, dict) else message[0]
            if isinstance(payload, list):
                payload = payload[0]
            if payload.get("e") == kind:
                return message

    async def ask(self, method: str, *params: object) -> Any:
        """Send a request and return its answer, dropping what comes before it."""
        asked: dict[str, object] = {"method": method, "id": 7}
        if params:
            asked["params"] = list(params)
        return await self.say(json.dumps(asked))

    async def say(self, text: str) -> Any:
        """Send a text and return the answer to it."""
        await self.socket.send_str(text)
        while True:
            message = await self.next()
            if isinstance(message, dict) and ("result" in message or "error" in message):
                return message

    async def closed(self) -> int | None:
        """Wait for the other side to end the connection; return the code it gave."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        return self.socket.close_code


class Stage:
    """A running intake: what a test sends is in it when `send` returns."""

    def __init__(self, record: Recorded, intake: Intake, front: StreamFront, url: str) -> None:
        self.record = record
        self.intake = intake
        self.front = front
        self.url = url
        self.session = aiohttp.ClientSession()

    async def send(self, *commands: AnyCommand) -> None:
        """Add an entry and wait until the intake has it."""
        await self.record.send(*commands)
        await self.caught_up()

    async def caught_up(self) -> None:
        """Wait until the intake has every entry."""
        await until(lambda: self.intake.state.seq == self.record.state.seq, "end of the record")

    async def index(self, symbol: str, price_ticks: int) -> None:
        """Report an index price."""
        source = IndexSource(source="test", price_ticks=price_ticks, raw="")
        await self.send(SetIndexPrice(market=symbol, sources=(source,)))

    async def account(self) -> int:
        """Open an account without money."""
        account_id = self.record.state.next_account_id
        await self.send(OpenAccount())
        return account_id

    async def order(self, account_id: int, side: Side, lots: int, price_ticks: int, **terms: object) -> None:
        """Place a limit order in BTCUSDT."""
        fields: dict[str, object] = {
            "account_id": account_id,
            "market": "BTCUSDT",
            "side": side,
            "order_type": OrderType.LIMIT,
            "quantity_lots": lots,
            "price_ticks": price_ticks,
            "time_in_force": TimeInForce.GTC,
        }
        await self.send(PlaceOrder(**(fields | terms)))  # type: ignore[arg-type]

    async def list_market(self, symbol: str, **rules: object) -> None:
        """List a market."""
        await self.send(ListMarket(spec=spec(symbol, **rules)))

    async def get(self, path: str, **parameters: object) -> Any:
        """Ask the REST side; return the decoded answer."""
        query = {name: str(value) for name, value in parameters.items()}
        async with self.session.get(f"{self.url}{path}", params=query) as response:
            return await response.json()

    async def connect(self, path: str) -> Socket:
        """Open a WebSocket."""
        return Socket(await self.session.ws_connect(f"{self.url}{path}", autoping=True))


@asynccontextmanager
async def streaming(
    *,
    limits: StreamLimits | None = None,
    listener: ListenerLimits | None = None,
    request_limits: Limits = DEFAULT_LIMITS,
    seed: int = 1,
    specs: Sequence[MarketSpec] = (),
) -> AsyncIterator[Stage]:
    """Run an intake with two markets and a few funded accounts, numbers 2 to 7, at the time that it is."""
    record = Recorded(MemoryLog(), seed=seed, now_ns=time.time_ns(), specs=specs)
    await record.begin()
    intake = Intake(record.log, "intake-test", KeyRing(os.urandom(32)), limits=request_limits)
    await intake.catch_up()
    gate = Gate(intake)
    streams = StreamFront(gate, limits)
    front = Front(gate, dict.fromkeys(PATHS, streams.handle))
    folding = asyncio.create_task(intake.run())
    runner = web.ServerRunner(FrontServer(front.handle, gate.usage, listener, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    stage = Stage(record, intake, streams, f"http://{host}:{port}")
    try:
        yield stage
    finally:
        await stage.session.close()
        await streams.close()
        await runner.cleanup()
        folding.cancel()
        await asyncio.gather(folding, return_exceptions=True)
        await intake.close()
