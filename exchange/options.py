"""Options that several commands have, and what they lead to: a server, a log, an archive."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exchange import config

if TYPE_CHECKING:
    from events.log import ReadableLog
    from events.redis import RedisLog
    from exchange.audit.travel import Moment


def _choose_server(context: typer.Context, url: str | None) -> str | None:
    """Return the address of the server to use, None for the embedded one: what was typed beats the rest.

    `up` takes both: its data directory also holds the logs of the processes and the key file.

    Raises:
        typer.BadParameter: both were typed, or the address is none.
    """
    if not url:
        return None
    if _is_typed(context, "data_dir"):
        if not _is_typed(context, "redis_url"):
            return None
        if context.info_name != "up":
            raise typer.BadParameter("--data-dir is the embedded server's; give one of the two")
    problem = _address_problem(url)
    if problem:
        source = "" if _is_typed(context, "redis_url") else f" (from {config.REDIS_URL_ENV})"
        # The address itself is not repeated: it may hold a password.
        raise typer.BadParameter(f"not an address of a server{source}: {problem}")
    return url


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _address_problem(url: str) -> str | None:
    from redis.asyncio.connection import parse_url

    if "://" not in url:
        return None if url.startswith("/") else "must be redis://, rediss:// or unix://, or a socket's path"
    try:
        parse_url(url)
    except ValueError as error:
        return str(error)
    return None


DataDir = Annotated[
    Path,
    # Eager: it is known when the server's address is looked at.
    typer.Option("--data-dir", is_eager=True, help="Directory of the embedded server; its log is there."),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar=config.REDIS_URL_ENV,
        callback=_choose_server,
        help="A Redis or Valkey server (redis://, rediss://, unix://) instead of the embedded one.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ArchiveToRead = Annotated[
    str | None,
    typer.Option(
        "--archive",
        help="Read this archive (a directory, a .tar of one or a file system URL) instead of a server's log.",
    ),
]
ArchiveOfLog = Annotated[
    str | None,
    typer.Option(
        "--archive",
        envvar=config.ARCHIVE_ENV,
        help="The log's archive: a directory or a URL.  [default: beside the embedded server]",
    ),
]


def archive_of(data_dir: Path, redis_url: str | None) -> str | None:
    """Return where the archive of a log is: beside an embedded server, where a setting says for others."""
    beside = None if redis_url else str(data_dir / config.ARCHIVE_DIR_NAME)
    return os.environ.get(config.ARCHIVE_ENV) or beside


def read_log(
    data_dir: Path,
    redis_url: str | None,
    work: Callable[["ReadableLog"], Awaitable[None]],
    archive: str | None = None,
) -> None:
    """Run a command that reads a log; its errors become a message and an exit code.

    The log is `archive` when that is given, else that of the server; what was trimmed there comes from the
    server's own archive.
    """
    from events.log import LogMissingError
    from events.redis import RedisLog

    place = "on that server" if redis_url else f"in {data_dir.resolve()}"

    async def read_server(url: str) -> None:
        log = RedisLog(url, shard=config.SHARD)
        try:
            if (await log.event_head()).seq == 0:
                raise LogMissingError(f"there is no log {place}")
            await work(_with_archive(log, archive_of(data_dir, redis_url)))
        finally:
            await log.close()

    if archive is None:
        call(data_dir, redis_url, read_server)
    else:
        with reporting():
            asyncio.run(_read_archive(archive, work))


async def _read_archive(url: str, work: Callable[["ReadableLog"], Awaitable[None]]) -> None:
    from events.log import LogMissingError
    from exchange.archiving import opened
    from exchange.audit.cli import ReplayProgress

    with ReplayProgress("unpacking") as progress, opened(url, progress.update) as archive:
        progress.end()
        if archive.head.seq == 0:
            raise LogMissingError(f"there is no archive in {url}")
        await work(archive)


def _with_archive(log: "RedisLog", url: str | None) -> "ReadableLog":
    from events.segments import ArchivedThenLive

    return log if url is None else ArchivedThenLive(url, log)


def call(data_dir: Path, redis_url: str | None, work: Callable[[str], Awaitable[Any]]) -> Any:
    """Run something on the server that the options name; its errors become a message and an exit code."""
    from exchange.runtime import log_url

    async def run(url: str) -> Any:
        return await work(url)

    with reporting(), log_url(data_dir, redis_url) as url:
        return asyncio.run(run(url))


@contextmanager
def reporting() -> Iterator[None]:
    """Turn the errors of a command into a message and an exit code."""
    from events.embedded import EmbeddedServerError
    from events.log import LogError
    from exchange.aggregate.state import IdentityError
    from exchange.audit.travel import NotInLogError
    from exchange.runtime import exit_code_of

    try:
        yield
    except NotInLogError as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(config.EXIT_USAGE) from None
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing more may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(config.EXIT_OK) from None
    except (LogError, EmbeddedServerError, IdentityError, OSError) as error:
        typer.echo(f"foldex: {error}", err=True)
        raise typer.Exit(exit_code_of(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(config.EXIT_OK) from None


def snapshot_directories(data_dir: Path, given: Path | None = None) -> list[Path]:
    """Return where snapshots of a log are looked for: in the one `given`, else where the archiver and
    `foldex audit snapshots` put them.
    """
    if given is not None:
        return [given]
    return [data_dir / config.SNAPSHOT_DIR_NAME, data_dir / config.AUDIT_SNAPSHOT_DIR_NAME]


def moment_of(text: str | None, option: str) -> "Moment | None":
    """Return the moment of a log that an option names, None when it was not given."""
    from exchange.audit.travel import BadMomentError, Moment

    if text is None:
        return None
    try:
        return Moment.parse(text)
    except BadMomentError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None
