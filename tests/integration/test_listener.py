"""The public listener under connections that mean it no good: they are bounded, and others are served."""

import asyncio
import gc
import json
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from exchange.config import Enforce
from exchange.intake.front import BODY_BYTES_MAX
from exchange.intake.limits import Limits
from exchange.intake.listener import FILES_SHARE, HEAD_BYTES_MAX, ListenerLimits, connections_max
from tests.integration.processes import environment, foldex, free_ports
from tests.running_venue import DEADLINE_S
from tests.streaming import Stage, streaming
from tests.waiting import eventually

PING = b"GET /fapi/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n"
HANDSHAKE = (
    b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Caller:
    """A connection of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self, data: bytes) -> tuple[int, dict[str, object]]:
        """Send a request, or part of one; return status and body of an answer."""
        self.writer.write(data)
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:] if line)
            body = await self.reader.readexactly(int(fields[b"content-length"]))
        return int(head.split()[1]), json.loads(body)

    async def ended(self) -> None:
        """Wait until the other side has ended the connection."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while await self.reader.read(65_536):
                    pass
            except ConnectionError:
                pass


@asynccontextmanager
async def callers(place: Stage | str, count: int) -> AsyncIterator[list[Caller]]:
    """Lend connections on which nothing has been said."""
    host, port = (place if isinstance(place, str) else place.url).removeprefix("http://").split(":")
    made = [Caller(*await asyncio.open_connection(host, int(port))) for _ in range(count)]
    try:
        yield made
    finally:
        for caller in made:
            caller.writer.transport.abort()


def resident_mb() -> float:
    """Return the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def is_served(place: Stage | str) -> bool:
    """Tell whether a request of somebody else is answered."""
    url = place if isinstance(place, str) else place.url
    async with aiohttp.ClientSession() as session, session.get(f"{url}/fapi/v1/ping") as response:
        return 200 == response.status


async def is_let_in(place: Stage | str) -> bool:
    """Tell whether a request is answered now; it may be turned away."""
    try:
        return await is_served(place)
    except aiohttp.ClientError:
        return False


async def test_who_never_ends_a_head_is_disconnected() -> None:
    """Whether it is sent a byte at a time or not at all; a connection without a request may wait longer."""
    async with (
        streaming(listener=ListenerLimits(head_s=0.3, look_s=0.05)) as stage,
        callers(stage, 4) as (half, slow, second, idle),
    ):
        half.writer.write(HANDSHAKE[:-2])
        assert 200 == (await second.answer(PING))[0]
        second.writer.write(PING[:-2])

        async def drip() -> None:
            while not slow.writer.transport.is_closing():
                slow.writer.write(b"GET / HTTP/1.1\r\nX: " if not dripped else b"x")
                dripped.append(1)
                await asyncio.sleep(0.01)

        dripped: list[int] = []
        dripping = asyncio.create_task(drip())
        for caller in (half, slow, second):
            await caller.ended()
        dripping.cancel()
        assert 200 == (await idle.answer(PING))[0]


async def test_a_head_is_bounded_in_bytes() -> None:
    """Too long a head is refused before its end, whatever its parts; memory is not filled meanwhile."""
    async with streaming() as stage, callers(stage, 3) as made:
        fields = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 4_000) for n in range(HEAD_BYTES_MAX // 4_000 + 1))
        many = b"".join(b"X-%d: x\r\n" % n for n in range(1_000))
        for caller, data in zip(made, (fields, many, b"x" * 10 * HEAD_BYTES_MAX), strict=True):
            status, error = await caller.answer(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + data)
            assert (400, -1130) == (status, error["code"])
            await caller.ended()
        cookie = "x" * 8_000
        async with stage.session.get(f"{stage.url}/fapi/v1/ping", headers={"Cookie": cookie}) as response:
            assert 200 == response.status


async def test_what_cannot_be_read_is_not_kept() -> None:
    """Megabytes of no HTTP are refused at their beginning; nothing waits for the collector to be freed."""
    async with streaming() as stage:
        gc.disable()
        try:
            held_mb = resident_mb()
            for _ in range(20):
                async with callers(stage, 1) as (caller,):
                    status, error = await caller.answer(b"GET /" + b"x" * 10_000_000)
                    assert (400, -1130) == (status, error["code"])
                    await caller.ended()
            grown_mb = resident_mb() - held_mb
        finally:
            gc.enable()
        assert grown_mb < 60, "the client's own ten megabytes are among them"


async def test_a_body_that_does_not_come_ends_the_connection() -> None:
    """Nobody keeps a request open for ever; one that is too large is told so, and not cut off."""
    async with (
        streaming(listener=ListenerLimits(request_s=0.3, look_s=0.05)) as stage,
        callers(stage, 2) as (slow, large),
    ):
        slow.writer.write(b"POST /fapi/v1/order HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\nsymbol=")
        await slow.ended()
        length = BODY_BYTES_MAX * 4
        head = b"POST /fapi/v1/order HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
        assert (413, -1101) == tuple(
            value if isinstance(value, int) else value["code"]
            for value in await large.answer(head + b"x" * length)
        )


async def test_an_answer_that_nobody_reads_ends_the_connection() -> None:
    """Of thousands of requests on one connection few are answered, then it is cut off; a socket lives on."""
    async with streaming(listener=ListenerLimits(request_s=0.5, look_s=0.05)) as stage:
        stream = await stage.connect("/ws")
        loop = asyncio.get_running_loop()
        host, port = stage.url.removeprefix("http://").split(":")
        with closing(socket.socket()) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, (host, int(port)))
            requests = b"GET /fapi/v1/exchangeInfo HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000

            async def ask_for_ever() -> None:
                while True:
                    await loop.sock_sendall(deaf, requests)

            with pytest.raises(ConnectionError):
                await asyncio.wait_for(ask_for_ever(), DEADLINE_S)
        assert await is_served(stage)
        await stream.ask("LIST_SUBSCRIPTIONS")


async def test_idle_connections_make_room() -> None:
    """However many there are, who comes is served: those that were idle longest end, a stream does not."""
    async with streaming(listener=ListenerLimits(connections_max=100)) as stage:
        stream = await stage.connect("/ws")
        async with callers(stage, 400) as made:
            for caller in made[:300]:
                await caller.ended()
            assert await is_served(stage)
            assert 200 == (await made[-1].answer(PING))[0]
            await stream.ask("LIST_SUBSCRIPTIONS")


async def test_without_idle_connections_a_new_one_is_turned_away() -> None:
    """503 at once, and served again when one has ended."""
    async with streaming(listener=ListenerLimits(connections_max=5)) as stage, AsyncExitStack() as opened:
        streams = [await stage.connect("/ws") for _ in range(5)]
        (late,) = await opened.enter_async_context(callers(stage, 1))
        status, error = await late.answer(b"")
        assert (503, -1008) == (status, error["code"])
        await late.ended()
        await streams[0].socket.close()
        await eventually(lambda: is_let_in(stage), "room for a connection")


async def test_an_address_has_its_share() -> None:
    """Whom limits bind may have a quarter of the connections there are; the next is told so."""
    bound = Limits(enforce=Enforce.ALL)
    async with (
        streaming(listener=ListenerLimits(connections_max=40), request_limits=bound) as stage,
        callers(stage, 10) as made,
    ):
        assert 200 == (await made[-1].answer(PING))[0]
        async with callers(stage, 1) as (late,):
            status, error = await late.answer(b"")
            assert (429, -1003) == (status, error["code"])
        made[0].writer.close()
        await eventually(lambda: is_let_in(stage), "room for a connection")


def test_connections_leave_files_to_the_rest() -> None:
    """What may be open is raised to what is wanted, where the system allows it."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = connections_max()
    raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft <= raised
    assert 0 < allowed <= raised * FILES_SHARE


@pytest.mark.slow
async def test_a_process_that_may_open_few_files_goes_on(tmp_path: Path) -> None:
    """With room for 300 files and 600 idle connections the API, the administrator and the log are served."""
    port = free_ports()
    command = foldex("up", "--data-dir", str(tmp_path / "data"), "--port", str(port), "--feed", "none")
    url, admin_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"
    with (tmp_path / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", 'ulimit -n 300 && exec "$0" "$@"', *command),
            env=environment(),
            stdout=output,
            stderr=output,
        )

    async def is_up() -> bool:
        assert process.returncode is None, (tmp_path / "output").read_text()
        return await is_let_in(url)

    try:
        await eventually(is_up, "exchange")
        async with callers(url, 600), aiohttp.ClientSession() as session:
            for _ in range(20):
                assert await is_served(url)
            async with session.post(f"{admin_url}/admin/v1/account", json={"deposit": "5"}) as response:
                assert 200 == response.status
        assert await is_served(url)
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
