"""The floor of the latency bench: the same stack without an exchange in it.

A listener (aiohttp on uvloop) puts what it is sent into a Redis stream, a second process copies entry by
entry into another stream, the listener reads that one and answers. So a message takes the way of an order
(two streams, two processes, one batch in flight each) and nobody decides anything.

    python -m exchange.bench.echo listen SOCKET PORT | copy SOCKET
"""

import asyncio
import sys
from typing import Any

import msgspec
import redis.asyncio
import uvloop
from aiohttp import web

from exchange.intake.wsapi.messages import Answer, read_request
from exchange.intake.wsapi.stepping import Stepper

REQUESTS, ANSWERS = "foldex:bench:requests", "foldex:bench:answers"
ENTRIES_PER_READ = 256
BLOCK_MS = 500
BODY = b"b"

_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
_encode_json = msgspec.json.Encoder().encode


async def copy(client: Any) -> None:
    """Copy what comes, until cancelled."""
    last = "0-0"
    while True:
        for entry_id, fields in await _read(client, REQUESTS, last):
            last = entry_id
            await client.xadd(ANSWERS, {BODY: fields[BODY]})


class Listener:
    """Sends messages round, and gives each its answer."""

    def __init__(self, client: Any, reader: Any) -> None:
        self._client = client
        self._reader = reader
        self._waiting: list[tuple[int, bytes]] = []
        self._arrived = asyncio.Event()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._count = 0

    async def send(self) -> None:
        """Append what waits, one batch at a time, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._waiting = self._waiting, []
            await self._client.xadd(REQUESTS, {BODY: _encode(batch)})

    async def receive(self) -> None:
        """Hand out what came back, until cancelled."""
        last = "0-0"
        while True:
            for entry_id, fields in await _read(self._reader, ANSWERS, last):
                last = entry_id
                for number, body in _decode(fields[BODY]):
                    self._asked.pop(number).set_result(body)

    def ask(self, body: bytes) -> "asyncio.Future[bytes]":
        """Send one message round."""
        self._count += 1
        answer = self._asked[self._count] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._count, body))
        self._arrived.set()
        return answer

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, or all messages of a WebSocket."""
        socket = web.WebSocketResponse(compress=False)
        if not socket.can_prepare(request).ok:
            await self.ask(request.raw_path.encode())
            return web.Response(body=b"{}", content_type="application/json")
        await socket.prepare(request)

        def answer(future: "asyncio.Future[bytes]") -> None:
            found = Answer(read_request(future.result().decode()).id, 200, {})
            Stepper(socket.send_bytes(_encode_json(found)), lambda *_: None)()

        async for message in socket:
            self.ask(message.data.encode()).add_done_callback(answer)
        return socket


async def _read(client: Any, key: str, after: str) -> list[tuple[str, dict[bytes, bytes]]]:
    found = await client.xread({key: after}, count=ENTRIES_PER_READ, block=BLOCK_MS)
    return found[0][1] if found else []


async def _listen(client: Any, reader: Any, port: int) -> None:
    listener = Listener(client, reader)
    runner = web.ServerRunner(web.Server(listener.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)  # noqa: T201
    await asyncio.gather(listener.send(), listener.receive())


def main() -> None:
    """Run one of the two processes until it is ended."""
    role, socket, *rest = sys.argv[1:]

    async def run() -> None:
        client, reader = (redis.asyncio.Redis(unix_socket_path=socket) for _ in range(2))
        await (copy(client) if role == "copy" else _listen(client, reader, int(rest[0])))

    try:
        uvloop.run(run())
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
