"""The embedded server: one at a time on a directory, kept between runs, ended cleanly, told when in use."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from events.embedded import (
    SOCKET_PATH_BYTES_MAX,
    DataDirInUseError,
    EmbeddedServer,
    EmbeddedServerError,
    attach_or_start,
)


def put(socket_path: str, value: str) -> None:
    """Store a value, so that a later server can show that it has it."""
    with redis.Redis(unix_socket_path=socket_path) as connection:
        connection.set("key", value)


def get(socket_path: str) -> str | None:
    """Return the stored value."""
    with redis.Redis(unix_socket_path=socket_path, decode_responses=True) as connection:
        value = connection.get("key")
        assert value is None or isinstance(value, str)
        return value


@pytest.mark.parametrize(("durability", "fsync"), [("relaxed", "everysec"), ("strict", "always")])
def test_the_settings_keep_what_is_acknowledged(tmp_path: Path, durability: str, fsync: str) -> None:
    """Append-only file on, no eviction, no snapshots, no port, a socket for its user alone."""
    with EmbeddedServer(tmp_path / "data", durability) as server:  # type: ignore[arg-type]
        with redis.Redis(unix_socket_path=server.socket_path, decode_responses=True) as connection:
            found = connection.config_get("*")
        mode = Path(server.socket_path).stat().st_mode & 0o777

    assert ("yes", fsync, "noeviction") == (
        found["appendonly"],
        found["appendfsync"],
        found["maxmemory-policy"],
    )
    assert ("0", "", str(tmp_path / "data")) == (found["port"], found["save"], found["dir"])
    assert mode == 0o700
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_data_outlives_the_server(tmp_path: Path) -> None:
    """A clean stop leaves no process and no socket; the next run has the data."""
    server = EmbeddedServer(tmp_path)
    server.start()
    pid, socket_path = server.pid, Path(server.socket_path)
    put(server.socket_path, "kept")

    server.stop()
    server.stop()

    assert not server.is_running()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not socket_path.exists()
    with server:
        assert get(server.socket_path) == "kept"


def test_a_directory_in_use_is_refused_by_name(tmp_path: Path) -> None:
    """The message names the server's process and the directory, and the first server goes on."""
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(DataDirInUseError) as caught:
            EmbeddedServer(tmp_path).start()

        assert f"process id {server.pid} is running on {tmp_path}" in str(caught.value)
        assert f"started by process {os.getpid()}" in str(caught.value)
        assert get(server.socket_path) is None


def test_a_killed_server_does_not_block_the_next(tmp_path: Path) -> None:
    """Its record and socket are left behind, its lock is not."""
    killed = EmbeddedServer(tmp_path)
    killed.start()
    put(killed.socket_path, "kept")
    os.kill(killed.pid, signal.SIGKILL)
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
    assert not killed.is_running()
    assert (tmp_path / "server.json").exists()
    assert (tmp_path / "server.sock").exists()

    with EmbeddedServer(tmp_path) as server:
        assert get(server.socket_path) == "kept"


def test_a_record_of_somebody_elses_process_does_not_block(tmp_path: Path) -> None:
    """After a restart of the machine the number in an old record may belong to anyone."""
    record = {"pid": os.getpid(), "starter_pid": os.getpid(), "socket": str(tmp_path / "server.sock")}
    (tmp_path / "server.json").write_text(json.dumps(record))

    with EmbeddedServer(tmp_path) as server:
        assert server.is_running()


def test_a_copy_of_a_directory_leaves_the_servers_of_others_alone(tmp_path: Path) -> None:
    """The record of a server that a copied directory has names files of others; none of them is touched."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    with EmbeddedServer(tmp_path / "data") as live:
        put(live.socket_path, "kept")
        for named in (live.socket_path, str(precious)):
            copy = tmp_path / "copy"
            copy.mkdir(exist_ok=True)
            record = {"pid": live.pid, "starter_pid": os.getpid(), "socket": named}
            (copy / "server.json").write_text(json.dumps(record))
            with EmbeddedServer(copy) as server:
                assert live.socket_path != server.socket_path

        assert ("kept", "mine") == (get(live.socket_path), precious.read_text())


def test_a_server_that_outlived_its_starter_is_seen(tmp_path: Path) -> None:
    """It still holds the directory; the message says that its starter is gone and how to end it."""
    code = (
        "import os, sys; from events.embedded import EmbeddedServer; s = EmbeddedServer(sys.argv[1]); "
        "s.start(); print(s.pid, flush=True); os._exit(1)"
    )
    starter = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, check=False, timeout=60
    )
    orphan_pid = int(starter.stdout)
    try:
        with pytest.raises(DataDirInUseError, match=f"is gone: end it with kill {orphan_pid}"):
            EmbeddedServer(tmp_path).start()
        with attach_or_start(tmp_path) as socket_path:
            assert get(socket_path) is None
    finally:
        os.kill(orphan_pid, signal.SIGKILL)


def test_a_long_directory_has_its_socket_elsewhere(tmp_path: Path) -> None:
    """Where the path is too long for a unix socket, a private directory takes it, and goes with it."""
    data_dir = tmp_path / ("d" * SOCKET_PATH_BYTES_MAX) / "ü ' x"
    server = EmbeddedServer(data_dir)
    with server:
        socket_path = Path(server.socket_path)
        put(server.socket_path, "kept")
        assert data_dir not in socket_path.parents
        assert socket_path.parent.stat().st_mode & 0o777 == 0o700
        with attach_or_start(data_dir) as attached:
            assert get(attached) == "kept"

    assert not socket_path.parent.exists()
    with server:
        assert get(server.socket_path) == "kept"


def test_an_interrupt_of_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    """The server leads a session of its own."""
    with EmbeddedServer(tmp_path) as server:
        assert os.getsid(server.pid) == server.pid


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The message ends with the server's log; the directory is free again."""
    with EmbeddedServer(tmp_path) as server:
        put(server.socket_path, "kept")
    manifest = next((tmp_path / "appendonlydir").glob("*.manifest"))
    good = manifest.read_bytes()
    manifest.write_bytes(b"not a manifest\n")

    with pytest.raises(EmbeddedServerError, match=r"(?s)ended with code 1; its log ends with.*manifest"):
        EmbeddedServer(tmp_path).start()

    manifest.write_bytes(good)
    with EmbeddedServer(tmp_path) as server:
        assert get(server.socket_path) == "kept"


def test_a_server_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    """A frozen process does not hold up the stop for ever."""
    server = EmbeddedServer(tmp_path)
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)

    server.stop(deadline_s=0.05)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_reading_attaches_to_a_running_server(tmp_path: Path) -> None:
    """The running one is used and left running."""
    with EmbeddedServer(tmp_path) as server:
        with attach_or_start(tmp_path) as socket_path:
            assert server.socket_path == socket_path
        assert server.is_running()


def test_reading_starts_a_server_for_the_duration(tmp_path: Path) -> None:
    """Without one running, one runs while the log is read."""
    with EmbeddedServer(tmp_path) as server:
        put(server.socket_path, "kept")

    with attach_or_start(tmp_path) as socket_path:
        assert get(socket_path) == "kept"

    with socket.socket(socket.AF_UNIX) as connection, pytest.raises(FileNotFoundError):
        connection.connect(socket_path)


def test_reading_makes_no_log(tmp_path: Path) -> None:
    """A mistyped directory is an error, not a new log."""
    with pytest.raises(EmbeddedServerError, match="there is no log in"), attach_or_start(tmp_path / "typo"):
        pass

    assert not (tmp_path / "typo").exists()
