import shutil
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from events.embedded import EmbeddedServer

from .harness import Harness, MemoryHarness, ServerHarness, SimulatedHarness

ServerOf = Callable[[str], EmbeddedServer]


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerOf]:
    """Each real server is started once, when the first test asks for it."""
    servers: dict[str, EmbeddedServer] = {}

    def get(name: str) -> EmbeddedServer:
        if name not in servers:
            binary = None
            if name == "redis" and (binary := shutil.which("redis-server")) is None:
                pytest.skip("redis-server is not installed")
            servers[name] = EmbeddedServer(tmp_path_factory.mktemp(name), binary=binary)
        if not servers[name].is_running():
            servers[name].start()
        return servers[name]

    yield get
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["memory", "simulated", "valkey", "redis"])
async def harness(request: pytest.FixtureRequest, server_of: ServerOf) -> AsyncIterator[Harness]:
    """An empty log of each implementation in turn."""
    in_memory = {"memory": MemoryHarness, "simulated": SimulatedHarness}.get(request.param)
    made: Harness = in_memory() if in_memory else ServerHarness(server_of(request.param))
    made.wipe()
    yield made
    await made.close()


@pytest.fixture(params=["valkey", "redis"])
async def server(request: pytest.FixtureRequest, server_of: ServerOf) -> AsyncIterator[ServerHarness]:
    """An empty log on each real server in turn."""
    made = ServerHarness(server_of(request.param))
    made.wipe()
    yield made
    await made.close()
