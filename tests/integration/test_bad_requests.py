"""Bad requests at the whole surface: refused with a code, without a trace in the log."""

import asyncio
import os
import resource
from collections import Counter

import aiohttp
import pytest
from yarl import URL

from tests.mutations import Mutator, Request
from tests.running_venue import Venue, own_address

REQUESTS = int(os.environ.get("FOLDEX_MUTATED_REQUESTS", "5000"))
CONNECTIONS = 8
GROWTH_MB_MAX = 64


async def refuse(session: aiohttp.ClientSession, venue: Venue, request: Request) -> str:
    """Send a request; return how it was refused."""
    url = URL(f"{venue.url}{request.target}", encoded=True)
    async with session.request(
        request.method, url, headers=request.headers, data=request.body or None
    ) as response:
        answer = await response.json() if request.method != "HEAD" else {"code": 0, "msg": "HEAD"}
        assert 400 <= response.status < 500, (request, response.status, answer)
        assert answer["code"] <= 0, (request, answer)
        assert answer["msg"], (request, answer)
        return f"{response.status} {answer['code']}"


def resident_mb() -> float:
    """Return the most memory this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.soak
async def test_mutated_requests_are_refused_and_leave_no_trace(venue: Venue) -> None:
    """Whatever is wrong with a request: 4xx with a code and a text, nothing in the log, memory bounded."""
    account = await venue.account()
    entries_before = len(venue.log.commands)
    outcomes: Counter[str] = Counter()

    async def work(seed: int) -> None:
        mutator = Mutator(seed, account.api_key, account.secret)
        connector = aiohttp.TCPConnector(local_addr=own_address(seed))
        async with aiohttp.ClientSession(connector=connector) as session:
            for _ in range(REQUESTS // 2 // CONNECTIONS):
                outcomes[await refuse(session, venue, mutator.request())] += 1

    await asyncio.gather(*(work(100 + n) for n in range(CONNECTIONS)))
    held_mb = resident_mb()
    await asyncio.gather(*(work(200 + n) for n in range(CONNECTIONS)))

    print(f"{sum(outcomes.values())} requests: {dict(outcomes.most_common())}")
    assert len(venue.log.commands) == entries_before
    assert resident_mb() - held_mb < GROWTH_MB_MAX
    assert len(outcomes) > 8
