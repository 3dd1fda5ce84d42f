"""A replica of a rig's server that can be cut off from it and then take its place and address.

Clients connect to a symbolic link, which leads to the socket of the primary until the replica is promoted: it
stands for the address that a real installation moves. Replication itself runs over TCP on 127.0.0.1.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from events.embedded import EmbeddedServer
from tests.faults.rig import Rig
from tests.integration.processes import free_ports
from tests.waiting import eventually, until


class Replica:
    """The second server of a rig, whose `server` is the primary, until `take_over`."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._server = rig.another_server("replica")
        self._address = rig.directory / "address"

    async def start(self) -> None:
        """Start it, wait until it follows, and give the rig an address that can change."""
        rig = self._rig
        self._point_to(rig.server)
        await asyncio.to_thread(self._server.start)
        port = free_ports()
        async with _client(rig.server) as primary:
            await primary.execute_command(
                "CONFIG", "SET", "bind", "127.0.0.1", "port", port, "repl-diskless-sync-delay", 0
            )
        async with _client(self._server) as replica:
            await replica.execute_command("REPLICAOF", "127.0.0.1", port)
        await eventually(lambda: self._is_link("up"), "replication")
        rig.address = self._address

    async def cut_off(self) -> None:
        """End replication; the primary goes on without."""
        async with _client(self._rig.server) as primary:
            await primary.config_set("port", 0)
            await primary.execute_command("CLIENT", "KILL", "TYPE", "replica")
        await eventually(lambda: self._is_link("down"), "end of replication")

    async def take_over(self) -> None:
        """kill -9 the primary; its address leads to the replica, which is promoted."""
        rig = self._rig
        os.kill(rig.server.pid, signal.SIGKILL)
        await until(lambda: not rig.server.is_running(), "end of the primary")
        # In this order clients first meet a replica that takes no writes, as they do in a real failover.
        self._point_to(self._server)
        async with _client(self._server) as replica:
            await replica.execute_command("REPLICAOF", "NO", "ONE")

    def _point_to(self, server: EmbeddedServer) -> None:
        draft = self._address.with_suffix(".new")
        draft.symlink_to(server.socket_path)
        draft.replace(self._address)

    async def _is_link(self, status: str) -> bool:
        async with _client(self._server) as replica:
            found: Any = await replica.info("replication")
        return bool(found["master_link_status"] == status)


@asynccontextmanager
async def _client(server: EmbeddedServer) -> AsyncIterator["redis.asyncio.Redis"]:
    client = redis.asyncio.Redis(unix_socket_path=server.socket_path)
    try:
        yield client
    finally:
        await client.aclose()
