"""What is done to the server and its files: killed, its append-only file cut off, its last seconds lost."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from random import Random

from events.embedded import Durability, EmbeddedServer, EmbeddedServerError
from events.log import Log, LogRewoundError
from events.redis import RedisLog
from exchange import config
from exchange.fold import Fold
from exchange.writer import rebuild
from tests.faults.rig import Rig, Row, loaded, rigged, row, settle
from tests.integration.processes import until

CUT_BYTES_MAX = 200
# So many entries at the end of a log cannot all be in the bytes that are cut off.
DIGESTS = 40
# What a power cut may take in relaxed mode is about a second: far more than this.
LOST_BYTES = (2_000, 20_000)
GONE_BACK = (config.EXIT_REWOUND, config.EXIT_FENCED)


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
                failure = await settle(load)
            if failure:
                result.notes.append(failure)
                return
            result.passed = count
            result.notes.append(f"{len(load.answers)} commands, acknowledged but lost 0")

    return await row(f"kill -9 the server, {durability}", count, work)


def log_file(server: EmbeddedServer) -> Path:
    """Return the file that the server appends to."""
    (path,) = (server.data_dir / "appendonlydir").glob("*.incr.aof")
    return path


def cut(path: Path, count: int) -> None:
    """Cut bytes off the end of a file."""
    os.truncate(path, max(0, path.stat().st_size - count))


async def file_cut(count: int) -> Row:
    """Cut 1 to 200 bytes off the append-only file of a stopped server."""

    async def work(result: Row) -> None:
        refused = 0
        with rigged() as rig:
            writer = rig.writer()
            async with loaded(rig.url) as load:
                await load.more(300)
                failure = await settle(load)
                digests = await _digests(load.log)
            assert not failure, failure
            writer.send(signal.SIGTERM)
            await writer.code()
            rig.server.stop()
            for n in range(count):
                copy = rig.directory / "cut"
                shutil.copytree(rig.server.data_dir, copy)
                found = await _start_cut(copy, 1 + n % CUT_BYTES_MAX)
                shutil.rmtree(copy)
                if isinstance(found, EmbeddedServerError):
                    refused += 1
                elif digests.get(found[0]) != found[1]:
                    result.notes.append(f"{1 + n % CUT_BYTES_MAX} bytes: another state at entry {found[0]}")
                    return
                result.passed = n + 1
            result.notes.append(f"refused by the server {refused}")

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


async def _start_cut(data_dir: Path, count: int) -> tuple[int, bytes] | EmbeddedServerError:
    """Cut, start, and rebuild as a writer does; return entry and digest, or the server's refusal."""
    server = EmbeddedServer(data_dir)
    cut(log_file(server), count)
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


async def seconds_lost(count: int) -> Row:
    """Set the log back while every process lives on: the file cut back, or FLUSHALL. All of them stop."""

    async def work(result: Row) -> None:
        random = Random(count)
        for n in range(count):
            with rigged() as rig:
                failure = await _set_back(rig, random, is_flush=n % 3 == 2)
            if failure:
                result.notes.append(f"loss {n + 1}: {failure}")
                return
            result.passed = n + 1

    return await row("the log loses its last seconds, processes live on", count, work)


async def _set_back(rig: Rig, random: Random, *, is_flush: bool) -> str:
    """Let a whole exchange live through a loss; return "" or what does not hold."""
    snapshots = ("--snapshots", str(rig.directory / "snapshots"), "--snapshot-events", "200")
    writer = rig.writer(*snapshots)
    await writer.line("ready")
    key_file = ("--key-file", str(rig.directory / "key"))
    processes = {
        "standby": rig.writer("--standby", *snapshots),
        "writer": writer,
        "liquidator": rig.process("liquidator", *snapshots),
        "intake": rig.process("intake", *rig.ports(), *key_file, *snapshots),
        "feed": rig.process("feed", *snapshots),
    }
    async with loaded(rig.url) as load:
        for name in ("liquidator", "intake", "feed"):
            await processes[name].line("ready")
        await processes["standby"].line("standing_by")
        await load.more(100)
        load.is_paused = True
        await load.all_answered()
        if is_flush:
            await _flush(rig)
        else:
            os.kill(rig.server.pid, signal.SIGKILL)
            await until(lambda: not rig.server.is_running(), "end of the server")
            cut(log_file(rig.server), random.randint(*LOST_BYTES))
            await asyncio.to_thread(rig.server.start)
        codes = {name: await process.code() for name, process in processes.items()}
        wrong = {name: code for name, code in codes.items() if code not in GONE_BACK}
        if wrong:
            return f"ended with {wrong}"
        return await _continues(rig, load.fold)


async def _flush(rig: Rig) -> None:
    import redis.asyncio

    client = redis.asyncio.Redis(unix_socket_path=rig.url)
    await client.flushall()
    await client.aclose()


async def _continues(rig: Rig, fold: Fold) -> str:
    """Make sure that what is left is a part of what there was, and that who followed live sees the loss."""
    log = RedisLog(rig.url)
    try:
        left = Fold(log, lambda entry: None)
        await left.catch_up()
        if left.head.seq > fold.head.seq:
            return f"the log went on to {left.head.seq} from {fold.head.seq}"
        try:
            await fold.catch_up()
        except LogRewoundError:
            return ""
        return "who followed live does not see the loss"
    finally:
        await log.close()
