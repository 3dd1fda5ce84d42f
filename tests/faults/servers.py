"""What is done to the server and its file: killed, and its append-only file cut off."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from random import Random

from events.embedded import Durability, EmbeddedServer, EmbeddedServerError
from events.log import Log
from events.redis import RedisLog
from exchange.fold import Fold
from exchange.writer import rebuild
from tests.faults.replica import Replica
from tests.faults.rig import Row, loaded, rigged, row, settle, settled

CUT_BYTES_MAX = 200
# So many entries at the end of a log cannot all be in the bytes that are cut off.
DIGESTS = 40


async def server_killed(count: int, durability: Durability) -> Row:
    """kill -9 the server under load and start it again; nothing that was acknowledged may be missing."""

    async def work(result: Row) -> None:
        random = Random(count)
        with rigged(durability) as rig:
            rig.writer()
            async with loaded(rig.url) as load:
                for _ in range(count):
                    await load.more(random.randint(1, 60))
                    await rig.kill_server()
                    result.tick()
                if await settled(load, result):
                    result.passed = count

    return await row(f"kill -9 the server, {durability}", count, work)


def log_file(server: EmbeddedServer) -> Path:
    """Return the file that the server appends to."""
    (path,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
    return path


def entry_ends(path: Path) -> tuple[int, int]:
    """Return where in a server's file the last command entry ends, and the last event entry.

    Behind them are only leases and heartbeats, whose loss would prove nothing.
    """
    content = path.read_bytes()
    ends = {b"foldex:{main}:commands": 0, b"foldex:{main}:events": 0}
    added = b""
    at = 0
    while at < len(content):
        parts, at = _read_call(content, at)
        # Events are added in a transaction, with the head.
        if parts[0] == b"XADD":
            added = parts[1]
            ends[added] = at
        elif parts[0] == b"EXEC" and added == b"foldex:{main}:events":
            ends[added] = at
            added = b""
    return ends[b"foldex:{main}:commands"], ends[b"foldex:{main}:events"]


def _read_call(content: bytes, at: int) -> tuple[list[bytes], int]:
    """Return one command with its arguments, and where it ends."""
    line_end = content.index(b"\r\n", at)
    parts = []
    count, at = int(content[at + 1 : line_end]), line_end + 2
    for _ in range(count):
        line_end = content.index(b"\r\n", at)
        length = int(content[at + 1 : line_end])
        parts.append(content[line_end + 2 : line_end + 2 + length])
        at = line_end + length + 4
    return parts, at


async def file_cut(count: int) -> Row:
    """Cut 1 to 200 bytes off the append-only file of a stopped server, from the end of its last entries."""

    async def work(result: Row) -> None:
        refused = shorter = 0
        with rigged() as rig:
            writer = rig.writer()
            async with loaded(rig.url) as load:
                await load.more(300)
                failure = await settle(load)
                digests = await _digests(load.log)
            assert not failure, failure
            writer.send(signal.SIGTERM)
            await writer.code()
            ends = entry_ends(log_file(rig.server))
            rig.server.stop()
            for n in range(count):
                copy = rig.directory / "cut"
                shutil.copytree(rig.server.data_dir, copy)
                # However few are asked for, they reach from one byte to whole entries.
                cut_bytes = 1 + n * CUT_BYTES_MAX // count
                found = await _start_cut(copy, ends[n % len(ends)] - cut_bytes)
                shutil.rmtree(copy)
                if isinstance(found, EmbeddedServerError):
                    refused += 1
                elif digests.get(found[0]) != found[1]:
                    result.notes.append(f"{cut_bytes} bytes: another state at entry {found[0]}")
                    return
                else:
                    shorter += found[0] < max(digests)
                result.passed = n + 1
                result.tick()
            result.notes.append(
                f"started at a whole entry {count - refused}, refused by the server {refused}; "
                f"lost entries {shorter}"
            )
            if shorter + refused < count:
                result.passed = 0
                result.notes.append("a cut took nothing from the log")

    return await row("cut 1…200 bytes off the append-only file", count, work)


async def _digests(log: Log) -> dict[int, bytes]:
    """Return the digests of the states behind the last entries of a log."""
    last = (await log.event_head()).seq
    digests: dict[int, bytes] = {}
    fold = Fold(log, lambda entry: digests.update(_digest_at(fold, entry.entry.seq, last)))
    await fold.catch_up()
    return digests


def _digest_at(fold: Fold, seq: int, last: int) -> dict[int, bytes]:
    return {seq: fold.state.digest()} if seq > last - DIGESTS else {}


async def _start_cut(data_dir: Path, size_bytes: int) -> tuple[int, bytes] | EmbeddedServerError:
    """Cut the file to a size, start, and rebuild as a writer does; return entry and digest, or a refusal."""
    server = EmbeddedServer(data_dir)
    os.truncate(log_file(server), size_bytes)
    try:
        await asyncio.to_thread(server.start)
    except EmbeddedServerError as error:
        return error
    log = RedisLog(server.socket_path)
    try:
        rebuilt = await rebuild(log, asyncio.Event())
        assert rebuilt is not None
        state, reader, head = rebuilt
        while await reader.read(100):  # what is still to be decided is whole, too
            pass
        assert head.seq <= reader.seq == await log.last_command_seq(), (head.seq, reader.seq)
        return head.seq, state.digest()
    finally:
        await log.close()
        server.stop()


async def failed_over(count: int) -> Row:
    """kill -9 the primary under load and promote its replica, where answers wait for the replica."""

    async def work(result: Row) -> None:
        random = Random(count)
        acknowledged = 0
        for n in range(count):
            with rigged() as rig:
                replica = Replica(rig)
                await replica.start()
                rig.writer()
                async with loaded(rig.url, seed=n, replicas=1) as load:
                    await load.more(random.randint(1, 200))
                    await replica.take_over()
                    head = load.fold.head
                    acknowledged += load.answered
                log = RedisLog(rig.url)
                try:
                    stored = await log.read_events(head.seq - 1, 1)
                finally:
                    await log.close()
                # Equal hashes say that every entry up to there is what it was, and so every answer in them.
                if [head.chain_hash] != [entry.chain_hash for entry in stored]:
                    result.notes.append(f"failover {n + 1}: entry {head.seq} was answered and is not there")
                    return
                result.passed = n + 1
                result.tick()
        result.notes.append(f"{acknowledged} commands acknowledged, lost 0")

    return await row("kill -9 the primary, replica promoted, WAIT 1", count, work)
