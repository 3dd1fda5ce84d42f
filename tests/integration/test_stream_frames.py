"""What no stream connection should be sent: answered as an error or ended, and nothing else comes of it."""

import asyncio
import json
import os
from random import Random

import aiohttp
import pytest

from exchange.intake.streams.connection import StreamLimits
from tests.mutations import GARBAGE
from tests.streaming import Stage, streaming

FRAMES = int(os.environ.get("FOLDEX_MUTATED_FRAMES", "2500"))
CONNECTIONS = 4
LIMITS = StreamLimits(messages_per_s=10**9)
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE")
NAMES = ("btcusdt@trade", "!bookTicker", "btcusdt@depth@100ms", "x", "combined", "@", "!")


def mutated(random: Random) -> str | bytes:
    """Return a frame with at least one thing wrong in it."""
    garbage = random.choice(GARBAGE)
    name = random.choice(NAMES)
    good = {"method": random.choice(METHODS), "params": [name], "id": random.randrange(99)}
    kind = random.randrange(8)
    if kind == 0:
        return json.dumps(good)[: random.randrange(1, 20)]
    if kind == 1:
        return json.dumps(good | {"id": random.choice((garbage * 40 or -1, -1, 1.5, True, [], {}))})
    if kind == 2:
        return json.dumps(good | {"params": random.choice((None, garbage, 7, {}, [7], [[]], [None], []))})
    if kind == 3:
        return json.dumps(good | {"method": random.choice((garbage, None, 1, [], "subscribe"))})
    if kind == 4:
        return json.dumps(good).encode() + bytes(random.randrange(128, 256) for _ in range(5))
    if kind == 5:
        return "[" * random.randrange(1, 60_000)
    if kind == 6:
        return '{"id":1,"id":2,"method":"SUBSCRIBE","method":7,"params":["a"]}'
    return random.choice(("null", "true", "1e400", "NaN", '"x"', "[]", " ", "\x00", "🙂", "{" * 3_000))


async def refuse(stage: Stage, socket: aiohttp.ClientWebSocketResponse, frame: str | bytes) -> bool:
    """Send a frame; return whether the connection lives. What comes back is an error."""
    try:
        if isinstance(frame, str):
            await socket.send_str(frame)
        else:
            await socket.send_bytes(frame)
    except (UnicodeEncodeError, ConnectionError):
        return not socket.closed
    async with asyncio.timeout(20):
        message = await socket.receive()
    if message.type is not aiohttp.WSMsgType.TEXT:
        return False
    error = json.loads(message.data)["error"]
    assert error["code"] in (0, 1, 2, 3)
    assert error["msg"]
    return True


@pytest.mark.soak
async def test_mutated_frames_are_refused() -> None:
    """Each is answered with an error, or ends the connection; no subscription comes of it, and no defect."""
    async with streaming(limits=LIMITS) as stage:

        async def work(seed: int) -> None:
            random = Random(seed)
            socket = (await stage.connect("/ws")).socket
            for _ in range(FRAMES // CONNECTIONS):
                if not await refuse(stage, socket, mutated(random)):
                    socket = (await stage.connect("/ws")).socket

        await asyncio.gather(*(work(seed) for seed in range(CONNECTIONS)))
        assert () == stage.front.hub.open_names
        client = await stage.connect("/ws/btcusdt@bookTicker")
        assert "bookTicker" == (await client.next())["e"]
