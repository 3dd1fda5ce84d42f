"""The intake's life: read the log, open the origin, serve two listeners, stop without losing an answer."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from aiohttp import web

from events.log import Log
from exchange import config
from exchange.fold import NO_SNAPSHOTS, Snapshots
from exchange.intake.admin import admin_app
from exchange.intake.front import Front
from exchange.intake.gate import Gate
from exchange.intake.keys import KeyRing, load_key_file
from exchange.intake.limits import DEFAULT_LIMITS, Limits
from exchange.intake.listener import FrontServer, ListenerLimits, connections_max
from exchange.intake.metrics import Consumers
from exchange.intake.service import ANSWER_DEADLINE_S, Intake
from exchange.intake.streams.front import PATHS as STREAM_PATHS
from exchange.intake.streams.front import StreamFront
from exchange.intake.trade.listen_key_file import ListenKeyFile
from exchange.intake.wsapi.server import WebSocketApi
from exchange.runtime import until_available

# A handler answers within its own deadline; one that does not is beyond waiting for.
SHUTDOWN_DEADLINE_S = ANSWER_DEADLINE_S + 2.0
KEEPALIVE_S = 75.0
BACKLOG = 1_024

logger = structlog.get_logger(__name__)


async def run_intake(
    log: Log,
    *,
    host: str,
    port: int,
    admin_host: str,
    admin_port: int,
    key_file: Path,
    stop: asyncio.Event,
    lag_frames: int = config.LAG_FRAMES_DEFAULT,
    limits: Limits = DEFAULT_LIMITS,
    snapshots: Snapshots = NO_SNAPSHOTS,
    consumers: Consumers | None = None,
    legacy_conditional_orders: bool = False,
    on_ready: Callable[[Callable[[], int]], None] | None = None,
) -> None:
    """Serve until `stop` is set; then refuse what is new, finish what is under way, and return.

    `on_ready` is called once both listeners accept connections, with what tells the last entry read. A log
    server that does not answer is waited for. `lag_frames` bounds what waits for the writer (see `service`),
    `limits` what a caller may ask (see `limits`). For `legacy_conditional_orders` see `service`. `consumers`
    tells how far other processes have come. Listen keys outlive this process, for the next one on `port`, in
    a file beside `key_file`.

    Raises:
        KeyFileError: the key file cannot be used.
        CorruptLogError, LogRewoundError: the log is not what it was.
        FrameRefusedError: another process opened the same name; this one may no longer append.
        OSError: an address cannot be listened on.
    """
    keys = KeyRing(load_key_file(key_file))
    name = f"intake-{port}"
    intake = Intake(
        log,
        name,
        keys,
        lag_frames=lag_frames,
        snapshots=snapshots,
        limits=limits,
        legacy_conditional_orders=legacy_conditional_orders,
    )
    if not await until_available(intake.catch_up, stop):
        return
    ListenKeyFile(
        key_file.with_name(f"{name}.listen-keys"), intake.listen_keys, lambda: intake.state.accounts
    ).open()
    folding = asyncio.create_task(intake.run(), name="intake fold")
    opening = asyncio.create_task(intake.open(), name="intake open")
    stopping = asyncio.create_task(stop.wait(), name="intake stop")
    reading = asyncio.create_task(_read_past(intake, stop), name="intake past")
    ends = (stopping, folding, reading)
    try:
        await asyncio.wait((opening, *ends), return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
            timing = asyncio.create_task(intake.keep_time(), name="intake time")
            async with _Listeners(intake, host, port, admin_host, admin_port, consumers):
                logger.info("intake_listens", host=host, port=port, admin_port=admin_port)
                if on_ready is not None:
                    on_ready(lambda: intake.state.seq)
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                timing.cancel()
                if folding.done():
                    # Nothing will be read any more: whoever waits for an answer need not.
                    await intake.close()
    finally:
        await intake.close()
        stopping.cancel()
        # What is cut off is a read that waits for what comes next; entries are applied whole.
        folding.cancel()
        reading.cancel()
        await asyncio.wait((opening, *ends))
        logger.info("intake_stopped", seq=intake.state.seq)
    for task in (folding, reading):
        if not task.cancelled():
            task.result()


async def _read_past(intake: Intake, stop: asyncio.Event) -> None:
    """Read the past, and then wait: that it has been read is no reason to stop."""
    await until_available(intake.read_past, stop)
    await stop.wait()


class _Listeners:
    """Both HTTP servers. Leaving closes them: new requests are refused, those under way are finished."""

    def __init__(
        self,
        intake: Intake,
        host: str,
        port: int,
        admin_host: str,
        admin_port: int,
        consumers: Consumers | None,
    ) -> None:
        self._gate = Gate(intake)
        self._socket_api = WebSocketApi(self._gate)
        self._streams = StreamFront(self._gate)
        streams = dict.fromkeys(STREAM_PATHS, self._streams.handle)
        front = Front(self._gate, {"ws-fapi": self._socket_api.handle} | streams)
        self._public = web.ServerRunner(
            FrontServer(
                front.handle,
                self._gate.usage,
                ListenerLimits(connections_max=connections_max()),
                access_log=None,
                keepalive_timeout=KEEPALIVE_S,
            ),
            shutdown_timeout=SHUTDOWN_DEADLINE_S,
        )
        self._admin = web.AppRunner(
            admin_app(intake, lambda: self._gate.closing, consumers),
            access_log=None,
            shutdown_timeout=SHUTDOWN_DEADLINE_S,
        )
        self._addresses = ((self._public, host, port), (self._admin, admin_host, admin_port))

    async def __aenter__(self) -> "_Listeners":
        try:
            for runner, host, port in self._addresses:
                await runner.setup()
                await web.TCPSite(runner, host, port, backlog=BACKLOG).start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        self._gate.closing = True
        # A connection that waits for more requests would keep its listener from ending.
        await asyncio.gather(self._socket_api.close(), self._streams.close())
        await asyncio.gather(self._public.cleanup(), self._admin.cleanup())
