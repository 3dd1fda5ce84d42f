"""An exchange for clients that know nothing of it but an address, a key and a secret."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.running_venue import Account, Venue, running_venue

T = TypeVar("T")


@dataclass
class Local:
    """A running exchange, the account that the client under test acts for, and one that trades against it."""

    venue: Venue
    account: Account
    other: Account

    @property
    def host(self) -> str:
        """Host and port, without a scheme."""
        return self.venue.url.removeprefix("http://")

    async def price(self, price: str, symbol: str = "BTCUSDT") -> None:
        """Let the index, and with it the mark, be another."""
        status, body = await self.venue.admin("index", {"symbol": symbol, "price": price})
        assert 200 == status, body

    async def offer(self, side: str, price: str, quantity: str = "1") -> None:
        """Let the other account's order rest in BTCUSDT."""
        status, body = await self.other.order(side=side, price=price, quantity=quantity)
        assert 200 == status, body


@asynccontextmanager
async def local(directory: Path) -> AsyncIterator[Local]:
    """Run an exchange with BTCUSDT at 50,000, and two accounts."""
    async with running_venue(directory) as venue:
        yield Local(venue, await venue.account("10000"), await venue.account("1000000"))


async def call(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Call a client that waits for its answer, beside the exchange that gives it."""
    return await asyncio.to_thread(function, *arguments, **named)
