"""The log on Redis or Valkey streams.

Command entries are numbered by the server (`0-*`), event entries carry the number of the command entry
they answer. Every key of a shard has one hash tag, so that a cluster keeps them together and one script
may touch them all.

Two decisions that are not obvious:

- Connections are taken one by one from redis-py instead of through its client and pool. A blocked read
  must never delay an append, a request is never resent by the library (the caller resends the same
  (origin, n), which the aggregate runs once), and readers must see every reconnect, because it may lead to
  a server that has lost its tail.
- A refused event append is not an error yet: when the reply to an earlier attempt was lost, the entry is
  already there. So the refusal is followed by a look at what is stored.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import hiredis
from redis import exceptions as server_errors
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    UnixDomainSocketConnection,
    parse_url,
)

from events.frame import BODY_BYTES_MAX, GENESIS_HASH, CommandFrame, EventEntry
from events.log import (
    CommandEntry,
    CorruptLogError,
    FencedError,
    ForeignServerError,
    Head,
    Lease,
    LogError,
    LogExistsError,
    LogFullError,
    LogMissingError,
    LogRewoundError,
    LogUnavailableError,
    Place,
    ServerSettingsError,
    TrimmedError,
)

REPLY_TIMEOUT_S = 10.0
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

# Replies that mean "not now": the request had no effect, or its effect is unknown.
_PASSING_CODES = frozenset(
    ("LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS", "UNBLOCKED")
)
_FULL_CODES = ("OOM", "MISCONF")
_REFUSED_CODES = ("NOAUTH", "NOPERM", "WRONGPASS")

Reply = Any  # what hiredis makes of a RESP2 reply: bytes, int, list, None, or an error object


class _Script:
    """A Lua script and the name under which the server caches it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


# Entries that follow each other, all of them or none: a script that has begun to write runs to its end. The
# order of checks is that of likely causes. NOMKSTREAM keeps a lost stream from growing with a hole.
_APPEND_EVENTS = _Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local head = redis.call('HMGET', KEYS[2], 'seq', 'hash')
if not head[1] then head = {'0', string.rep('\\0', 32)} end
local seq = tonumber(ARGV[2])
if head[1] ~= string.format('%.0f', seq - 1) or head[2] ~= ARGV[3] then return 0 end
if seq > 1 and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 5, #ARGV, 4 do
  redis.call('XADD', KEYS[1], '0-' .. string.format('%.0f', seq),
    'v', ARGV[i], 'b', ARGV[i + 1], 'h', ARGV[i + 2], 'w', ARGV[4], 'x', ARGV[i + 3])
  seq = seq + 1
end
redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq - 1), 'hash', ARGV[#ARGV - 1])
return 1
""")

# An append over a new connection, which may lead to a server that has lost its tail. ARGV: an entry that must
# be there, unless it was trimmed, and its checksum; the new entry's fields.
_APPEND_BEHIND = _Script("""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return false end
if tonumber(string.sub(last[1], 3)) < tonumber(ARGV[1]) then return 0 end
local id = '0-' .. ARGV[1]
local seen = redis.call('XRANGE', KEYS[1], id, id)[1]
if seen then
  for i = 1, #seen[2], 2 do
    if seen[2][i] == 'c' and seen[2][i + 1] ~= ARGV[2] then return 0 end
  end
end
return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '0-*', unpack(ARGV, 3))
""")

_ACQUIRE = _Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local term = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[3])) + 1
redis.call('SET', KEYS[2], string.format('%.0f', term))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return term
""")

# Also takes back a lease that expired: with no later term nobody else has written.
_RENEW = _Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

_RELEASE = _Script("""
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")


# Both streams must end where the restored entries begin. ARGV: term, head, number of the first command, how
# many commands there are, six values of each, five of each event.
_RESTORE = _Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local head = redis.call('HMGET', KEYS[2], 'seq', 'hash')
if not head[1] then head = {'0', string.rep('\\0', 32)} end
if head[1] ~= ARGV[2] or head[2] ~= ARGV[3] then return 0 end
local seq = tonumber(ARGV[2])
if seq > 0 and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local last = 0
if redis.call('EXISTS', KEYS[4]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[4])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = tonumber(string.sub(info[i + 1], 3)) end
  end
end
local count = tonumber(ARGV[5])
if count > 0 and last + 1 ~= tonumber(ARGV[4]) then return 0 end
local first_event = 6 + 6 * count
if seq + (#ARGV + 1 - first_event) / 5 > last + count then return 0 end
for i = 6, first_event - 1, 6 do
  last = last + 1
  redis.call('XADD', KEYS[4], '0-' .. string.format('%.0f', last), 'v', ARGV[i], 'o', ARGV[i + 1],
    'n', ARGV[i + 2], 't', ARGV[i + 3], 'b', ARGV[i + 4], 'c', ARGV[i + 5])
end
for i = first_event, #ARGV, 5 do
  seq = seq + 1
  redis.call('XADD', KEYS[1], '0-' .. string.format('%.0f', seq), 'v', ARGV[i], 'b', ARGV[i + 1],
    'h', ARGV[i + 2], 'w', ARGV[i + 3], 'x', ARGV[i + 4])
  redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq), 'hash', ARGV[i + 2])
end
return 1
""")

# A stream does not give numbers again, so what stays is written anew. ARGV: term, the last command to keep.
_DROP_UNANSWERED = _Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local answered = tonumber(redis.call('HGET', KEYS[2], 'seq') or '0')
if answered > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[4])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '0-' .. ARGV[2])) do
  redis.call('XADD', KEYS[4], entry[1], unpack(entry[2]))
end
if redis.call('EXISTS', KEYS[4]) == 0 then return 0 end
redis.call('RENAME', KEYS[4], KEYS[1])
return 1
""")

# ARGV: the first entry to keep and its hash, which must be there; up to where to remove in this call. The
# note of where the streams begin tells readers what was trimmed from what is missing.
_TRIM = _Script("""#!lua flags=allow-oom
local id = '0-' .. ARGV[1]
local stored = redis.call('XRANGE', KEYS[1], id, id)[1]
if not stored or not redis.call('XRANGE', KEYS[2], id, id)[1] then return 0 end
for i = 1, #stored[2], 2 do
  if stored[2][i] == 'h' and stored[2][i + 1] ~= ARGV[2] then return 0 end
end
redis.call('SET', KEYS[3], ARGV[3])
redis.call('XTRIM', KEYS[1], 'MINID', '=', '0-' .. ARGV[3])
redis.call('XTRIM', KEYS[2], 'MINID', '=', '0-' .. ARGV[3])
return 1
""")


class RedisLog:
    """`Log` on a server named by URL (`redis://`, `rediss://`, `unix://`) or by a unix socket's path.

    A handle belongs to one event loop. Each request has a connection to itself while it runs; idle ones
    are kept. An unanswered request fails with `LogUnavailableError` after ten seconds.

    With `replicas`, events are not returned before so many replicas of the server have received them: what
    was read survives a failover to one of those.
    """

    def __init__(self, url: str, *, shard: str = "main", replicas: int = 0) -> None:
        self._wire = _Wire(url)
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
        call = _pack("XADD", self._commands_key, "0-1", *_command_fields(frame))
        (reply,) = await self._wire.exchange([call])
        if isinstance(reply, server_errors.ResponseError) and "equal or smaller" in str(reply):
            raise LogExistsError("the command stream is not empty")
        _expect_answer(reply)

    async def append_command(self, frame: CommandFrame, *, behind: Place | None = None) -> int:
        """Append a command frame (see `Log.append_command`)."""
        fields = _command_fields(frame)

        def pack_checked() -> bytes:
            assert behind is not None
            place = (behind.seq, behind.checksum)
            return _pack("EVAL", _APPEND_BEHIND.source, 1, self._commands_key, *place, *fields)

        plain = _pack("XADD", self._commands_key, "NOMKSTREAM", "0-*", *fields)
        first = pack_checked if behind is not None else None
        reply = _expect_answer((await self._wire.exchange([plain], first=first))[0])
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
        (reply,) = await self._wire.exchange([_pack("XINFO", "STREAM", self._commands_key)])
        if isinstance(reply, server_errors.ResponseError) and "no such key" in str(reply):
            return 0
        info = _expect_answer(reply)
        last_id = dict(zip(info[0::2], info[1::2], strict=True))[b"last-generated-id"]
        return int(last_id.partition(b"-")[2])

    async def acquire_lease(self, writer_id: str, ttl_ms: int, *, above_term: int = 0) -> Lease | None:
        """Take the lease unless another holds it (see `Log.acquire_lease`)."""
        term = await self._run(_ACQUIRE, self._lease_keys, writer_id, ttl_ms, above_term)
        return None if term is None else Lease(writer_id=writer_id, term=term)

    async def renew_lease(self, lease: Lease, ttl_ms: int) -> None:
        """Hold the lease for longer (see `Log.renew_lease`)."""
        if not await self._run(_RENEW, self._lease_keys, lease.term, lease.writer_id, ttl_ms):
            raise FencedError(f"{lease.mark} was followed by a later term")

    async def release_lease(self, lease: Lease) -> None:
        """Give the lease back (see `Log.release_lease`)."""
        await self._run(_RELEASE, self._lease_keys, lease.term)

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
            _RESTORE,
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
        if not await self._run(_DROP_UNANSWERED, keys, lease.term, after):
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
                _TRIM,
                (self._events_key, self._commands_key, self._first_kept_key),
                first_kept.seq,
                first_kept.chain_hash,
                reached,
            )
            if not is_done:
                raise LogRewoundError(f"entry {first_kept.seq} is not the one before which to trim")

    async def event_head(self) -> Head:
        """Return number and hash of the last event entry."""
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
            await self._call("SCRIPT", "LOAD", _APPEND_EVENTS.source)
            replies = await self._wire.exchange(calls)
        return [_expect_answer(reply) == 1 for reply in replies]

    def _append_call(self, batch: Sequence[EventEntry], previous: Head, term: int, mark: str) -> bytes:
        arguments: list[str | bytes | int] = []
        for entry in batch:
            assert entry.writer == mark, (entry.writer, mark)
            arguments += (entry.schema, entry.body, entry.chain_hash, entry.timing)
        return _pack(
            "EVALSHA",
            _APPEND_EVENTS.sha,
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
        call = _pack("XREAD", "COUNT", limit, *block, "STREAMS", key, f"0-{after}")
        (reply,) = await self._wire.exchange([call], wait_ms / 1000)
        streams = _expect_answer(reply)
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
            _pack("PUBLISH", self._replicated_channel, ""),
            _pack("WAIT", self._replicas, REPLICAS_TIMEOUT_MS),
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

    async def _run(self, script: _Script, keys: tuple[str, ...], *arguments: str | bytes | int) -> Reply:
        (reply,) = await self._wire.exchange([_pack("EVALSHA", script.sha, len(keys), *keys, *arguments)])
        if isinstance(reply, server_errors.NoScriptError):
            reply = await self._call("EVAL", script.source, len(keys), *keys, *arguments)
        return _expect_answer(reply)

    async def _call(self, *command: str | bytes | int) -> Reply:
        (reply,) = await self._wire.exchange([_pack(*command)])
        return _expect_answer(reply)


class _Wire:
    """Connections to one server, each lent to one exchange at a time. `made` counts those ever made."""

    def __init__(self, url: str) -> None:
        self.made = 0
        self._class, self._arguments = _connection_arguments(url)
        # Without the password that the address may hold.
        host, port = self._arguments.get("host", "localhost"), self._arguments.get("port", 6379)
        self._place = self._arguments.get("path", f"{host}:{port}")
        self._idle: list[AbstractConnection] = []
        self._busy: set[AbstractConnection] = set()
        # Those over which a `first` was answered.
        self._checked: WeakSet[AbstractConnection] = WeakSet()
        self._is_closed = False

    async def exchange(
        self, packed: Sequence[bytes], wait_s: float = 0.0, *, first: Callable[[], bytes] | None = None
    ) -> list[Reply]:
        """Send packed commands at once and return their replies, refusals as error objects.

        What `first` packs is sent instead over a connection that has not carried one yet. The server may
        take `wait_s` longer than usual. When it cannot be reached, does not answer in time or the caller is
        cancelled, the connection is dropped, since replies may still be on their way.

        Raises:
            LogUnavailableError: no answer; ServerSettingsError: the server does not let this user in.
        """
        connection = await self._borrow()
        self._busy.add(connection)
        is_first = first is not None and connection not in self._checked
        if first is not None and is_first:
            packed = [first()]
        is_reusable = False
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S + wait_s):
                await connection.send_packed_command(packed, check_health=False)
                replies = [await _reply(connection) for _ in packed]
            if is_first and not isinstance(replies[0], server_errors.ResponseError):
                self._checked.add(connection)
            # A former master: only a new connection can lead to its successor.
            is_demoted = any(isinstance(reply, server_errors.ReadOnlyError) for reply in replies)
            if is_demoted:
                await self._drop_idle()
            is_reusable = not is_demoted
        except (server_errors.RedisError, TimeoutError, OSError) as error:
            # The other idle connections went to the same server: when it went away, so did they.
            await self._drop_idle()
            raise _translate(error, self._place) from error
        finally:
            self._busy.discard(connection)
            if is_reusable and not self._is_closed:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)
        return replies

    async def close(self) -> None:
        self._is_closed = True
        await self._drop_idle()
        for connection in list(self._busy):
            await connection.disconnect(nowait=True)

    async def _borrow(self) -> AbstractConnection:
        if self._is_closed:
            raise LogUnavailableError("this handle was closed")
        if self._idle:
            return self._idle.pop()
        connection = self._class(**self._arguments)
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except (server_errors.RedisError, OSError) as error:
            # Over a unix socket redis-py wraps a refused login as if nobody had listened.
            cause = error.__cause__
            is_wrapped = isinstance(cause, server_errors.RedisError)
            raise _translate(cause if is_wrapped else error, self._place) from error
        self.made += 1
        return connection

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)


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


def _connection_arguments(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    arguments: dict[str, Any] = dict(parse_url(url)) if "://" in url else {"path": url}
    default_class = UnixDomainSocketConnection if "path" in arguments else Connection
    connection_class = arguments.pop("connection_class", default_class)
    # Timeouts are set around whole exchanges, which is cheaper than redis-py's around each read and write.
    arguments |= {
        "socket_timeout": None,
        "socket_connect_timeout": REPLY_TIMEOUT_S,
        "protocol": 2,
        "driver_info": None,
    }
    return connection_class, arguments


def _pack(*command: str | bytes | int) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return packed


async def _reply(connection: AbstractConnection) -> Reply:
    try:
        return await connection.read_response()
    except server_errors.ResponseError as refusal:
        return refusal


def _expect_answer(reply: Reply) -> Reply:
    if isinstance(reply, server_errors.RedisError):
        raise _translate(reply) from reply
    return reply


def _translate(error: BaseException | None, place: str = "") -> LogError:
    """Say in the log's terms what a failure means for who asked the server at a `place`."""
    is_refusal = isinstance(error, server_errors.ResponseError)
    # redis-py cuts off the codes that it knows and leaves the others at the head of the text.
    known_code = getattr(error, "status_code", None)
    code = known_code or (str(error).partition(" ")[0] if is_refusal else "")
    text = f"{known_code} {error}" if known_code else str(error) or repr(error)
    if isinstance(error, server_errors.AuthenticationError) or code in _REFUSED_CODES:
        return ServerSettingsError(f"the server refuses this user: {text}")
    if code in _FULL_CODES:
        return LogFullError(text)
    if isinstance(error, server_errors.InvalidResponse):
        return ForeignServerError(f"what answers at {place} is no Redis or Valkey server: {text}")
    if not is_refusal or code in _PASSING_CODES:
        return LogUnavailableError(text)
    return LogError(text)


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
