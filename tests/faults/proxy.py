"""A TCP proxy in front of the server that can lose replies, cut connections, or hold up what is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

CHUNK_BYTES = 256 * 1024


class Proxy:
    """Passes bytes from a port of 127.0.0.1 to the unix socket of a server.

    There are two partitions. `cut` ends every connection, and those made until `heal` end at once. `hold`
    lets them be and passes nothing on; what was sent meanwhile arrives, late, after `heal`.

    Of requests that contain one of `markers`, a share of `loss` gets no reply: the server has done what was
    asked, and the connection ends. `lost` counts them.
    """

    def __init__(self, target: str, *, seed: int = 1) -> None:
        self.url = ""
        self.loss = 0.0
        self.markers: tuple[bytes, ...] = ()
        self.lost = 0
        self._target = target
        self._random = Random(seed)
        self._is_cut = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def cut(self) -> None:
        """End every connection and let no new one in."""
        self._is_cut = True
        for writer in list(self._open):
            writer.transport.abort()

    def hold(self) -> None:
        """Keep what is sent, in both directions."""
        self._flows.clear()

    def heal(self) -> None:
        """Let everything pass again."""
        self._is_cut = False
        self._flows.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        if self._is_cut:
            writer.transport.abort()
            return
        serving = asyncio.current_task()
        assert serving is not None
        self._tasks.add(serving)
        to_reader, to_writer = await asyncio.open_unix_connection(self._target)
        self._open |= {writer, to_writer}
        lose_next = asyncio.Event()
        back = asyncio.create_task(self._replies(to_reader, writer, lose_next))
        self._tasks.add(back)
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                if any(marker in chunk for marker in self.markers) and self._random.random() < self.loss:
                    lose_next.set()
                to_writer.write(chunk)
                await to_writer.drain()
        except OSError:
            pass
        finally:
            for each in (writer, to_writer):
                each.transport.abort()
                self._open.discard(each)
            self._tasks -= {back, serving}

    async def close(self) -> None:
        """End every connection and wait until that is done."""
        self.cut()
        self._flows.set()
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lose_next: asyncio.Event
    ) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                await self._flows.wait()
                if lose_next.is_set():
                    self.lost += 1
                    break
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        writer.transport.abort()


@asynccontextmanager
async def proxied(target: str, *, seed: int = 1) -> AsyncIterator[Proxy]:
    """Lend a proxy in front of the server at a unix socket."""
    proxy = Proxy(target, seed=seed)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
