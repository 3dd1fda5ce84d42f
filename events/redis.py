"""The log on Redis or Valkey streams.

Command entries are numbered by the server (`0-*`), event entries carry the number of the command entry
they answer. Every key of a shard has one hash tag, so that a cluster keeps them together and one script
may touch them all.

A refused event append is not an error yet: when the reply to an earlier attempt was lost, the entry is
already there. So the refusal is followed by a look at what is stored.
"""

from collections.abc import Sequence

from redis import exceptions as server_errors

from events.frame import BODY_BYTES_MAX, GENESIS_HASH, CommandFrame, EventEntry
from events.log import (
    CommandEntry,
    CorruptLogError,
    FencedError,
    Head,
    Lease,
    LogError,
    LogExistsError,
    LogMissingError,
    LogRewoundError,
    LogUnavailableError,
    Place,
    ServerSettingsError,
    TrimmedError,
)
from events.redis_scripts import (
    ACQUIRE,
    APPEND_BEHIND,
    APPEND_EVENTS,
    DROP_UNANSWERED,
    RELEASE,
    RENEW,
    RESTORE,
    TRIM,
    Script,
)
from events.redis_wire import Reply, Wire, expect_answer, pack

REPLICAS_TIMEOUT_MS = 1_000
# One script call appends several entries: most of what a small one costs is the call. But while it runs,
# nobody else is served.
ENTRIES_PER_CALL_MAX = 64
BYTES_PER_CALL_AIM = 256 * 1024
# Removing this many entries from both streams holds the server up for about a millisecond.
ENTRIES_PER_TRIM_MAX = 4_096
VERSION_MIN = (7, 0)
# An entry also holds a few hundred bytes around its body.
BULK_BYTES_MIN = BODY_BYTES_MAX + 1024 * 1024

_COMMAND_FIELDS = [b"v", b"o", b"n", b"t", b"b", b"c"]
_EVENT_FIELDS = [b"v", b"b", b"h", b"w", b"x"]


class RedisLog:
    """`Log` on a server named by URL (`redis://`, `rediss://`, `unix://`) or by a unix socket's path.

    A handle belongs to one event loop. Each request has a connection to itself while it runs; idle ones
    are kept. An unanswered request fails with `LogUnavailableError` after ten seconds.

    With `replicas`, events are not returned before so many replicas of the server have received them: what
    was read survives a failover to one of those.
    """

    def __init__(self, url: str, *, shard: str = "main", replicas: int = 0) -> None:
        self._wire = Wire(url)
        self._replicas = replicas
        prefix = f"foldex:{{{shard}}}:"
        self._commands_key = f"{prefix}commands"
        self._events_key = f"{prefix}events"
        self._head_key = f"{prefix}head"
        self._lease_key = f"{prefix}lease"
        self._term_key = f"{prefix}term"
        self._first_kept_key = f"{prefix}first_kept"
        self._replicated_channel = f"{prefix}replicated"

    @property
    def connections(self) -> int:
        """How often a connection was made; a reader that sees it grow checks its place again."""
        return self._wire.made

    async def create(self, frame: CommandFrame) -> None:
        """Append the first command entry (see `Log.create`)."""
        call = pack("XADD", self._commands_key, "0-1", *_command_fields(frame))
        (reply,) = await self._wire.exchange([call])
        if isinstance(reply, server_errors.ResponseError) and "equal or smaller" in str(reply):
            raise LogExistsError("the command stream is not empty")
        expect_answer(reply)

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        """Append a command frame (see `Log.append_command`)."""
        fields = _command_fields(frame)

        def pack_checked() -> bytes:
            assert behind is not None
            place = (behind.seq, behind.checksum)
            return pack("EVAL", APPEND_BEHIND.source, 1, self._commands_key, *place, *fields)

        plain = pack("XADD", self._commands_key, "NOMKSTREAM", "0-*", *fields)
        first = pack_checked if behind is not None else None
        reply = expect_answer((await self._wire.exchange([plain], first=first))[0])
        if reply is None:
            raise LogMissingError("the log has not been created")
        if reply == 0:
            assert behind is not None
            raise LogRewoundError(f"command entry {behind.seq}, which was seen, is no longer in the log")
        assert reply.startswith(b"0-"), reply
        return int(reply[2:])

    async def read_commands(self, after: int, limit: int, wait_ms: int = 0) -> list[CommandEntry]:
        """Return command entries behind `after` (see `Log.read_commands`).

        Raises:
            CorruptLogError: an entry lacks a field or holds something else than a number in one.
        """
        stored = await self._read(self._commands_key, after, limit, wait_ms)
        return [_command_entry(seq, *entry) for seq, entry in enumerate(stored, after + 1)]

    async def last_command_seq(self) -> int:
        """Return the number of the last command entry, 0 if there is none."""
        (reply,) = await self._wire.exchange([pack("XINFO", "STREAM", self._commands_key)])
        if isinstance(reply, server_errors.ResponseError) and "no such key" in str(reply):
            return 0
        info = expect_answer(reply)
        last_id = dict(zip(info[0::2], info[1::2], strict=True))[b"last-generated-id"]
        return int(last_id.partition(b"-")[2])

    async def acquire_lease(self, writer_id: str, ttl_ms: int, *, above_term: int = 0) -> Lease | None:
        """Take the lease unless another holds it (see `Log.acquire_lease`)."""
        term = await self._run(ACQUIRE, self._lease_keys, writer_id, ttl_ms, above_term)
        return None if term is None else Lease(writer_id=writer_id, term=term)

    async def renew_lease(self, lease: Lease, ttl_ms: int) -> None:
        """Hold the lease for longer (see `Log.renew_lease`)."""
        if not await self._run(RENEW, self._lease_keys, lease.term, lease.writer_id, ttl_ms):
            raise FencedError(f"{lease.mark} was followed by a later term")

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease back (see `Log.release_lease`)."""
        await self._run(RELEASE, self._lease_keys, lease.term)

    async def append_events(self, entries: Sequence[EventEntry], previous: Head, lease: Lease) -> None:
        """Append event entries that continue `previous` (see `Log.append_events`)."""
        if not entries:
            return
        batches = _batches(entries)
        for batch, is_appended in zip(
            batches, await self._append_batches(batches, previous, lease), strict=True
        ):
            if not is_appended:
                # A part of it may be there already, if an earlier attempt's reply was lost.
                singles = [[entry] for entry in batch]
                found = await self._append_batches(singles, previous, lease)
                for entry, is_new in zip(batch, found, strict=True):
                    if not is_new and not await self._holds(entry):
                        raise await self._refusal(entry, previous, lease)
            previous = Head(seq=batch[-1].seq, chain_hash=batch[-1].chain_hash)

    async def read_events(self, after: int, limit: int, wait_ms: int = 0) -> list[EventEntry]:
        """Return event entries behind `after` (see `Log.read_events`).

        Raises:
            CorruptLogError: an entry lacks a field or holds something else than a number in one.
            LogUnavailableError: also when too few replicas have them in time.
        """
        stored = await self._read(self._events_key, after, limit, wait_ms)
        if stored and self._replicas:
            await self._wait_for_replicas()
        return [_event_entry(seq, *entry) for seq, entry in enumerate(stored, after + 1)]

    async def restore(
        self, commands: Sequence[CommandEntry], events: Sequence[EventEntry], previous: Head, lease: Lease
    ) -> None:
        """Put back entries that were lost (see `Log.restore`)."""
        arguments: list[str | bytes | int] = []
        for command in commands:
            arguments += _command_fields(command.frame)[1::2]
        for entry in events:
            arguments += (entry.schema, entry.body, entry.chain_hash, entry.writer, entry.timing)
        is_done = await self._run(
            RESTORE,
            (self._events_key, self._head_key, self._term_key, self._commands_key),
            lease.term,
            previous.seq,
            previous.chain_hash,
            commands[0].seq if commands else 0,
            len(commands),
            *arguments,
        )
        if not is_done:
            raise FencedError(
                f"{lease.mark} may not restore {len(events)} event entries behind {previous.seq} "
                f"and {len(commands)} command entries: the streams end elsewhere, or another holds the lease"
            )

    async def drop_unanswered(self, after: int, lease: Lease) -> None:
        """Remove commands that have no answer (see `Log.drop_unanswered`)."""
        keys = (self._commands_key, self._head_key, self._term_key, self._commands_key + ":kept")
        if not await self._run(DROP_UNANSWERED, keys, lease.term, after):
            raise FencedError(
                f"{lease.mark} may not remove the command entries behind {after}: "
                "some are answered, or another holds the lease"
            )

    async def trim(self, first_kept: Head) -> None:
        """Remove what is before an entry (see `Log.trim`)."""
        reached = await self._first_kept()
        while reached < first_kept.seq:
            reached = min(first_kept.seq, reached + ENTRIES_PER_TRIM_MAX)
            is_done = await self._run(
                TRIM,
                (self._events_key, self._commands_key, self._first_kept_key),
                first_kept.seq,
                first_kept.chain_hash,
                reached,
            )
            if not is_done:
                raise LogRewoundError(f"entry {first_kept.seq} is not the one before which to trim")

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry.

        Raises:
            CorruptLogError: what the server keeps beside the stream is neither.
        """
        seq, chain_hash = await self._call("HMGET", self._head_key, "seq", "hash")
        if seq is None:
            return Head(seq=0, chain_hash=GENESIS_HASH)
        if not seq.isdigit() or chain_hash is None or len(chain_hash) != 32:
            raise CorruptLogError(0, f"the head key holds {seq!r}, {chain_hash!r}")
        return Head(seq=int(seq), chain_hash=chain_hash)

    async def check_server(self, *, strict: bool = False) -> None:
        """Make sure that the server keeps what it acknowledges.

        `strict` also asks for `appendfsync always`.

        Raises:
            ServerSettingsError: names each setting that does not, its value, and what to set.
        """
        info = _parse_info(await self._call("INFO"))
        names = ("appendonly", "appendfsync", "maxmemory-policy", "proto-max-bulk-len")
        reply = await self._call("CONFIG", "GET", *names)
        settings = {k.decode(): v.decode() for k, v in zip(reply[0::2], reply[1::2], strict=True)}
        wrong = _wrong_settings(info, settings, strict=strict)
        if wrong:
            raise ServerSettingsError("the server cannot hold this log: " + "; ".join(wrong))

    async def close(self) -> None:
        """Drop the connections. The log stays. Requests under way fail with `LogUnavailableError`."""
        await self._wire.close()

    @property
    def _lease_keys(self) -> tuple[str, str]:
        return (self._lease_key, self._term_key)

    async def _append_batches(
        self, batches: Sequence[Sequence[EventEntry]], previous: Head, lease: Lease
    ) -> list[bool]:
        """Ask for each batch in turn; tell which were appended."""
        mark = lease.mark
        calls = []
        for batch in batches:
            calls.append(self._append_call(batch, previous, lease.term, mark))
            previous = Head(seq=batch[-1].seq, chain_hash=batch[-1].chain_hash)
        replies = await self._wire.exchange(calls)
        if any(isinstance(reply, server_errors.NoScriptError) for reply in replies):
            # The server was restarted. What the first round did append is refused in the second.
            await self._call("SCRIPT", "LOAD", APPEND_EVENTS.source)
            replies = await self._wire.exchange(calls)
        return [expect_answer(reply) == 1 for reply in replies]

    def _append_call(self, batch: Sequence[EventEntry], previous: Head, term: int, mark: str) -> bytes:
        arguments: list[str | bytes | int] = []
        for entry in batch:
            assert entry.writer == mark, (entry.writer, mark)
            arguments += (entry.schema, entry.body, entry.chain_hash, entry.timing)
        return pack(
            "EVALSHA",
            APPEND_EVENTS.sha,
            3,
            self._events_key,
            self._head_key,
            self._term_key,
            term,
            batch[0].seq,
            previous.chain_hash,
            mark,
            *arguments,
        )

    async def _holds(self, entry: EventEntry) -> bool:
        stored = await self.read_events(entry.seq - 1, 1)
        return [(entry.seq, entry.chain_hash, entry.writer)] == [
            (found.seq, found.chain_hash, found.writer) for found in stored
        ]

    async def _refusal(self, entry: EventEntry, previous: Head, lease: Lease) -> LogError:
        head = await self.event_head()
        if head.seq < previous.seq:
            return LogRewoundError(f"entry {previous.seq} was appended, and the log ends at {head.seq}")
        term = await self._call("GET", self._term_key)
        return FencedError(
            f"{lease.mark} may not append entry {entry.seq}: the head is {head.seq}, "
            f"the term {0 if term is None else int(term)}"
        )

    async def _read(self, key: str, after: int, limit: int, wait_ms: int) -> list[tuple[bytes, list[bytes]]]:
        block = ("BLOCK", wait_ms) if wait_ms > 0 else ()
        call = pack("XREAD", "COUNT", limit, *block, "STREAMS", key, f"0-{after}")
        (reply,) = await self._wire.exchange([call], wait_ms / 1000)
        streams = expect_answer(reply)
        if streams is None:
            return []
        stored: list[tuple[bytes, list[bytes]]] = streams[0][1]
        if stored[0][0] != f"0-{after + 1}".encode():
            first_kept = await self._first_kept()
            if after + 1 < first_kept:
                raise TrimmedError(after + 1, first_kept)
        return stored

    async def _wait_for_replicas(self) -> None:
        """Wait until enough replicas have received what the server had sent them up to now.

        WAIT counts from what its own connection has replicated last, so that has to be something new: an
        empty message, which a full server takes as well.
        """
        calls = [
            pack("PUBLISH", self._replicated_channel, ""),
            pack("WAIT", self._replicas, REPLICAS_TIMEOUT_MS),
        ]
        _, found = await self._wire.exchange(calls, REPLICAS_TIMEOUT_MS / 1000)
        if isinstance(found, server_errors.ResponseError):
            raise LogUnavailableError(str(found)) from found  # a server that is a replica itself by now
        if found < self._replicas:
            raise LogUnavailableError(f"{found} replicas have what was read, of {self._replicas} to wait for")

    async def _first_kept(self) -> int:
        """Return where the streams begin: 1 until they were trimmed."""
        first_kept = await self._call("GET", self._first_kept_key)
        return 1 if first_kept is None else int(first_kept)

    async def _run(self, script: Script, keys: tuple[str, ...], *arguments: str | bytes | int) -> Reply:
        (reply,) = await self._wire.exchange([pack("EVALSHA", script.sha, len(keys), *keys, *arguments)])
        if isinstance(reply, server_errors.NoScriptError):
            reply = await self._call("EVAL", script.source, len(keys), *keys, *arguments)
        return expect_answer(reply)

    async def _call(self, *command: str | bytes | int) -> Reply:
        (reply,) = await self._wire.exchange([pack(*command)])
        return expect_answer(reply)


def _batches(entries: Sequence[EventEntry]) -> list[list[EventEntry]]:
    """Divide entries into what one script call appends, in order."""
    batches: list[list[EventEntry]] = []
    room = 0
    for entry in entries:
        if not batches or len(entry.body) > room or len(batches[-1]) == ENTRIES_PER_CALL_MAX:
            batches.append([])
            room = BYTES_PER_CALL_AIM
        batches[-1].append(entry)
        room -= len(entry.body)
    return batches


def _command_fields(frame: CommandFrame) -> tuple[str | bytes | int, ...]:
    return (
        "v", frame.schema, "o", frame.origin, "n", frame.n,
        "t", frame.time_ns, "b", frame.body, "c", frame.checksum,
    )  # fmt: skip


def _command_entry(expected_seq: int, entry_id: bytes, fields: list[bytes]) -> CommandEntry:
    seq = _seq(expected_seq, entry_id)
    if fields[0::2] != _COMMAND_FIELDS:
        raise CorruptLogError(seq, f"a command entry has the fields v o n t b c, this one {fields[0::2]}")
    schema, origin, n, time_ns, body, checksum = fields[1::2]
    try:
        frame = CommandFrame(
            origin=origin.decode(),
            n=_number(n, 64),
            time_ns=_number(time_ns, 64),
            schema=_number(schema, 32),
            body=body,
            checksum=checksum,
        )
    except ValueError as error:
        raise CorruptLogError(seq, f"command entry: {error}") from error
    return CommandEntry(seq=seq, frame=frame)


def _event_entry(expected_seq: int, entry_id: bytes, fields: list[bytes]) -> EventEntry:
    seq = _seq(expected_seq, entry_id)
    if fields[0::2] != _EVENT_FIELDS:
        raise CorruptLogError(seq, f"an event entry has the fields v b h w x, this one {fields[0::2]}")
    schema, body, chain_hash, writer, timing = fields[1::2]
    try:
        return EventEntry(
            seq=seq,
            schema=_number(schema, 32),
            body=body,
            chain_hash=chain_hash,
            writer=writer.decode(),
            timing=timing,
        )
    except ValueError as error:
        raise CorruptLogError(seq, f"event entry: {error}") from error


def _seq(expected_seq: int, entry_id: bytes) -> int:
    if not entry_id.startswith(b"0-"):
        raise CorruptLogError(expected_seq, f"its id is {entry_id.decode()}, not 0-{expected_seq}")
    return int(entry_id[2:])


def _number(text: bytes, bits: int) -> int:
    value = int(text) if text.isdigit() else -1
    if value < 0 or value >> bits:
        raise ValueError(f"{text[:32]!r} is not an unsigned number of {bits} bits")
    return value


def _parse_info(reply: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, _, value in pairs}


def _wrong_settings(info: dict[str, str], settings: dict[str, str], *, strict: bool) -> list[str]:
    """Name what must change, each with its value and the value to set."""
    wrong = []
    version = info.get("redis_version", "0.0")
    if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
        wrong.append(f"its version is {version}, use 7.0 or later")
    if info.get("role") != "master":
        wrong.append(f"its role is {info.get('role')}, connect to the master")
    fsync_allowed = ("always",) if strict else ("always", "everysec")
    rules = (
        ("appendonly", ("yes",)),
        ("appendfsync", fsync_allowed),
        ("maxmemory-policy", ("noeviction",)),
    )
    for name, allowed in rules:
        value = settings.get(name)
        if value not in allowed:
            wrong.append(f"{name} is {value}, set {name} {allowed[-1]}")
    bulk_bytes = int(settings.get("proto-max-bulk-len", "0"))
    if bulk_bytes < BULK_BYTES_MIN:
        wrong.append(f"proto-max-bulk-len is {bulk_bytes}, set proto-max-bulk-len {BULK_BYTES_MIN} or more")
    return wrong
