"""A running exchange in one event loop: real writer and intake over real sockets, the log in memory."""

import asyncio
import hashlib
import hmac
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from typer.testing import CliRunner
from yarl import URL

from events.memory import MemoryLog
from exchange.intake.admin_cli import app as admin_cli
from exchange.intake.process import run_intake
from exchange.writer import run_writer
from tests.integration.in_memory import MemoryHost
from tests.integration.processes import free_ports

DEADLINE_S = 20.0
BID: dict[str, object] = {
    "symbol": "BTCUSDT",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": "0.010",
    "price": "50000.0",
}
NOBODY = "a" * 64


def own_address(number: int) -> tuple[str, int] | None:
    """Return where to call from, one of 250 addresses of this machine: refusals have a pace for each.

    None where the system has but one.
    """
    return (f"127.0.1.{1 + number % 250}", 0) if sys.platform == "linux" else None


@dataclass
class Account:
    """A caller with a key."""

    venue: "Venue"
    account_id: int
    api_key: str
    secret: str

    async def call(
        self,
        method: str,
        path: str,
        *,
        in_body: bool = False,
        parameters: Mapping[str, object] | None = None,
        **named: object,
    ) -> Any:
        """Send a signed request; return status and decoded body."""
        text = urlencode({**(parameters or {}), **named, "timestamp": int(time.time() * 1000)})
        signature = hmac.new(self.secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return await self.venue.send(
            method, path, f"{text}&signature={signature}", api_key=self.api_key, in_body=in_body
        )

    async def order(self, **parameters: object) -> Any:
        """Place an order, by default to buy 0.01 BTC at 50,000."""
        given = {name: value for name, value in (BID | parameters).items() if value is not None}
        return await self.call("POST", "/fapi/v1/order", parameters=given)


@dataclass
class Venue:
    """A running exchange and a way to call it."""

    log: MemoryLog
    url: str
    admin_url: str
    session: aiohttp.ClientSession
    stop: asyncio.Event
    intake: "asyncio.Task[None]"
    writer: MemoryHost
    key_file: Path

    async def send(
        self, method: str, path: str, text: str = "", *, api_key: str = "", in_body: bool = False
    ) -> Any:
        """Send a request exactly as given; return status and decoded body."""
        url = URL(f"{self.url}{path}" + (f"?{text}" if text and not in_body else ""), encoded=True)
        headers = {"X-MBX-APIKEY": api_key} if api_key else {}
        data = text.encode() if in_body else None
        if in_body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        async with self.session.request(method, url, headers=headers, data=data) as response:
            assert "X-MBX-USED-WEIGHT-1M" in response.headers
            return response.status, await response.json()

    async def admin(self, path: str, body: object | None = None) -> Any:
        """Call the administrator's listener; return status and decoded body."""
        method = "GET" if body is None else "POST"
        async with self.session.request(method, f"{self.admin_url}/admin/v1/{path}", json=body) as response:
            return response.status, await response.json()

    async def account(self, deposit: str = "10000") -> Account:
        """Open an account."""
        status, made = await self.admin("account", {"deposit": deposit, "label": "test"})
        assert 200 == status, made
        return Account(self, made["account_id"], made["api_key"], made["secret"])

    def commands(self) -> int:
        """Count the commands in the log."""
        return sum(len(entry.frame.commands()) for entry in self.log.commands)


async def start_intake(
    log: MemoryLog, key_file: Path, stop: asyncio.Event, **settings: Any
) -> tuple["asyncio.Task[None]", str, str]:
    """Start an intake with these settings; return its task and addresses once it listens."""
    port = free_ports()
    admin_port = port + 1
    listening = asyncio.Event()
    task = asyncio.create_task(
        run_intake(
            log,
            host="127.0.0.1",
            port=port,
            admin_host="127.0.0.1",
            admin_port=admin_port,
            key_file=key_file,
            stop=stop,
            on_ready=lambda seq: listening.set(),
            **settings,
        )
    )
    waiting = asyncio.create_task(listening.wait())
    await asyncio.wait((task, waiting), timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    if not listening.is_set():
        task.result()
    assert listening.is_set()
    return task, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"


@asynccontextmanager
async def running_venue(directory: Path, **settings: Any) -> AsyncIterator[Venue]:
    """Run a writer and an intake, with BTCUSDT and ETHUSDT listed and an index of 50,000 and 3,000.

    `settings` are those of `run_intake`.
    """
    writer = MemoryHost("writer", MemoryLog())
    writing = asyncio.create_task(run_writer(writer))
    stop = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S):
        await writer.is_ready.wait()
    key_file = directory / "key"
    intake, url, admin_url = await start_intake(writer.log, key_file, stop, **settings)
    async with aiohttp.ClientSession() as session:
        made = Venue(writer.log, url, admin_url, session, stop, intake, writer, key_file)
        listed = await asyncio.to_thread(
            CliRunner().invoke, admin_cli, ["market", "list-defaults", "--admin-url", admin_url]
        )
        assert 0 == listed.exit_code, listed.output
        await made.admin("index", {"symbol": "BTCUSDT", "price": "50000"})
        await made.admin("index", {"symbol": "ETHUSDT", "price": "3000"})
        yield made
    stop.set()
    writer.stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(intake, writing, return_exceptions=True)
