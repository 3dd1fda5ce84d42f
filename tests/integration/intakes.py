"""A whole exchange in this process, for tests of the intake: its writer, a log in memory, real sockets."""

import asyncio
import hashlib
import hmac
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from events.memory import MemoryLog
from exchange.fold import NO_SNAPSHOTS, Snapshots
from exchange.intake.limits import DEFAULT_LIMITS, Limits
from exchange.intake.process import run_intake

DEADLINE_S = 20.0
NOBODY = "a" * 64


@dataclass
class Process:
    """What `run_writer` lives in here: a log in memory instead of a server."""

    log: MemoryLog
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    snapshots: Snapshots = NO_SNAPSHOTS

    def ready(self, seq: Callable[[], int], **marks: object) -> None:
        self.is_ready.set()


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
        wanted = {
            "symbol": "BTCUSDT",
            "side": "BUY",
            "type": "LIMIT",
            "timeInForce": "GTC",
            "quantity": "0.010",
            "price": "50000.0",
        } | parameters
        given = {name: value for name, value in wanted.items() if value is not None}
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
    writer: Process
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


def free_ports() -> tuple[int, int]:
    """Return two ports that were free a moment ago."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def start_intake(
    log: MemoryLog, key_file: Path, stop: asyncio.Event, limits: Limits = DEFAULT_LIMITS
) -> tuple["asyncio.Task[None]", str, str]:
    """Start an intake; return its task and addresses once it listens."""
    port, admin_port = free_ports()
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
            limits=limits,
            on_ready=lambda seq: listening.set(),
        )
    )
    waiting = asyncio.create_task(listening.wait())
    await asyncio.wait((task, waiting), timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    if not listening.is_set():
        task.result()
    assert listening.is_set()
    return task, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
