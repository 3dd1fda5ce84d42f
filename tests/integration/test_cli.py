"""The commands that look at a log, on a real log in a data directory, as a user runs them."""

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from typer.testing import CliRunner, Result

from events.commands import (
    AnyCommand,
    CancelAllOrders,
    Deposit,
    ListMarket,
    OpenAccount,
    PlaceOrder,
    SetIndexPrice,
)
from events.embedded import EmbeddedServer
from events.values import IndexSource, OrderType, Side
from exchange import config
from exchange.audit.printer import one_line, readable
from exchange.cli import app
from exchange.runtime import Runtime, alive_key
from exchange.telemetry import REDACTED, redact
from exchange.writer import run_writer
from tests.integration.processes import SECRET, Client, connected, environment, foldex, secret_key
from tests.venue import money, spec
from tests.waiting import DEADLINE_S

ALICE, BOB = 2, 3


@asynccontextmanager
async def exchange(url: str) -> AsyncIterator[Client]:
    """Run a writer on a server, and lend a client."""
    runtime = Runtime("writer", url)
    writing = asyncio.create_task(run_writer(runtime))
    try:
        async with connected(url) as client:
            yield client
    finally:
        runtime.stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await writing
        await runtime.close()


async def trade(url: str) -> str:
    """Write a small log: two markets, two accounts, a key, one trade of 0.01 BTC; return the digest."""
    async with exchange(url) as client:
        commands: tuple[AnyCommand, ...] = (
            ListMarket(spec=spec("BTCUSDT")),
            ListMarket(spec=spec("ETHUSDT")),
            *(OpenAccount(label=label) for label in ("alice", "bob")),
            *(Deposit(account_id=account_id, amount=money("1000")) for account_id in (ALICE, BOB)),
            secret_key(ALICE),
            SetIndexPrice(
                market="BTCUSDT", sources=(IndexSource(source="t", price_ticks=500_000, raw="50000"),)
            ),
            *(
                PlaceOrder(
                    account_id=account_id,
                    market="BTCUSDT",
                    side=side,
                    order_type=OrderType.LIMIT,
                    quantity_lots=10,
                    price_ticks=500_005,
                    client_order_id="first" if account_id == ALICE else "",
                )
                for account_id, side in ((ALICE, Side.SELL), (BOB, Side.BUY))
            ),
        )
        for command in commands:
            await client.ask(command)
        return client.fold.state.digest().hex()


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a data directory with a log, its server stopped, and the digest of the live state."""
    data_dir = tmp_path_factory.mktemp("log") / "data"
    with EmbeddedServer(data_dir) as server:
        digest = asyncio.run(trade(server.socket_path))
    return data_dir, digest


@pytest.fixture(autouse=True)
def no_server_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a server of whoever runs the tests out of them."""
    monkeypatch.delenv(config.REDIS_URL_ENV, raising=False)
    # What a command sets for its children ends with the test.
    monkeypatch.setenv(config.LOG_FORMAT_ENV, "console")
    monkeypatch.setenv(config.LOG_LEVEL_ENV, "info")


def run(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    """Return what a command said on stderr as one line, without the frame around a usage error."""
    return " ".join(result.stderr.replace("│", " ").split())


def rows(*arguments: object) -> list[dict[str, Any]]:
    """Run `foldex log --json` and return its lines."""
    result = run("log", "--json", *arguments)
    assert config.EXIT_OK == result.exit_code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_replay_gives_the_digest_and_the_balances(log_dir: tuple[Path, str]) -> None:
    """The state rebuilt by apply alone is the live one, and its money adds up."""
    data_dir, digest = log_dir
    result = json.loads(run("replay", "--data-dir", data_dir, "--json").stdout)
    accounts = {row["account_id"]: row for row in result["accounts"]}

    assert digest == result["digest"]
    assert ("exact", "2000.00000000") == (result["identities"], result["deposited"])
    # 0.01 × 50,000.5 traded; the maker pays 0.02 %, the taker 0.05 %.
    assert "999.89999900" == accounts[ALICE]["wallet"]
    assert "999.74999750" == accounts[BOB]["wallet"]
    assert "-0.010" == accounts[ALICE]["positions"][0]["size"]
    assert "50000.5" == result["markets"][0]["last"]


def test_replay_until_stops_behind_that_entry(log_dir: tuple[Path, str]) -> None:
    """An earlier state has its own digest and fewer balances; one behind the end is refused."""
    data_dir, digest = log_dir
    result = json.loads(run("replay", "--data-dir", data_dir, "--json", "--until", 5).stdout)
    assert 5 == result["seq"]
    assert digest != result["digest"]
    assert [] == result["accounts"]

    beyond = run("replay", "--data-dir", data_dir, "--until", 1_000)
    assert config.EXIT_USAGE == beyond.exit_code
    assert "there is no entry 1000" in beyond.stderr


def test_replay_prints_tables_for_people(log_dir: tuple[Path, str]) -> None:
    """Without --json the digest and each account stand in plain words."""
    data_dir, digest = log_dir
    printed = run("replay", "--data-dir", data_dir).stdout
    assert digest in printed
    assert "999.89999900" in printed


def test_a_damaged_log_is_not_replayed(tmp_path: Path) -> None:
    """One changed word, and replay ends with the exit code for damage and names the entry."""
    key = "foldex:{main}:events"
    with EmbeddedServer(tmp_path / "data") as server:
        asyncio.run(trade(server.socket_path))
        client: Any = redis.Redis(unix_socket_path=server.socket_path)
        entries = client.xrange(key)
        client.delete(key)
        for entry_id, fields in entries:
            client.xadd(key, fields | {b"b": fields[b"b"].replace(b"alice", b"malic")}, id=entry_id)
        client.close()
    (damaged,) = (int(entry_id[2:]) for entry_id, fields in entries if b"alice" in fields[b"b"])

    result = run("replay", "--data-dir", tmp_path / "data")
    assert config.EXIT_CORRUPT == result.exit_code
    assert f"entry {damaged}:" in result.stderr


def test_events_are_printed_in_decimals(log_dir: tuple[Path, str]) -> None:
    """A trade shows price, size and fees as decimals, found by its type."""
    (row,) = rows("--data-dir", log_dir[0], "--type", "trade")
    fields = row["fields"]
    assert ("50000.5", "0.010") == (fields["price"], fields["quantity"])
    assert ("0.10000100", "0.25000250") == (fields["maker_fee"], fields["taker_fee"])
    assert "buy" == fields["taker_side"]


def test_filters_select_by_account_market_and_place(log_dir: tuple[Path, str]) -> None:
    """Each filter keeps what it names and nothing else."""
    data_dir = log_dir[0]
    of_bob = rows("--data-dir", data_dir, "--account", BOB)
    assert ["account_opened", "deposited", "order_accepted", "trade"] == [row["type"] for row in of_bob]
    of_eth = rows("--data-dir", data_dir, "--market", "ETHUSDT")
    assert ["market_listed"] == [row["type"] for row in of_eth]
    after = of_bob[1]["seq"]
    assert {after + 1} == {row["seq"] for row in rows("--data-dir", data_dir, "--after", after, "--limit", 1)}


def test_commands_are_printed_with_what_was_asked(log_dir: tuple[Path, str]) -> None:
    """The command stream is shown decoded, as each was sent."""
    (row,) = rows("--data-dir", log_dir[0], "--kind", "commands", "--type", "place_order", "--account", ALICE)
    assert ("sell", "50000.5", "first") == tuple(
        row["fields"][name] for name in ("side", "price", "client_order_id")
    )


@pytest.mark.parametrize("kind", ["events", "commands"])
def test_secrets_are_never_printed(log_dir: tuple[Path, str], kind: str) -> None:
    """Neither stream, in neither form, shows what seals an API secret."""
    for form in ([], ["--json"]):
        printed = run("log", "--data-dir", log_dir[0], "--kind", kind, *form).stdout
        assert "key-2" in printed
        assert REDACTED in printed
        assert SECRET.hex() not in printed
        assert SECRET.decode() not in printed


def test_log_lines_hide_secrets_at_any_depth() -> None:
    """The logging processor blanks secret fields, nested ones too, and leaves the rest."""
    line = {"event": "x", "secret": "s", "request": {"signature": "s", "symbol": "BTCUSDT"}}
    expected = {"event": "x", "secret": REDACTED, "request": {"signature": REDACTED, "symbol": "BTCUSDT"}}
    assert expected == redact(None, "info", line)


def test_without_a_market_prices_keep_their_unit() -> None:
    """A message about an unknown market is shown in ticks and lots, under their names."""
    command = PlaceOrder(
        account_id=2, market="X", side=Side.BUY, order_type=OrderType.LIMIT, quantity_lots=3, price_ticks=7
    )
    line = one_line(readable(command, {}))
    assert "quantity_lots=3 price_ticks=7" in line
    assert 'client_order_id=""' in line


async def test_follow_prints_what_comes(tmp_path: Path) -> None:
    """`--follow` prints an event when it happens, and ends with 0 on Ctrl-C."""
    with EmbeddedServer(tmp_path / "data") as server:
        async with exchange(server.socket_path) as client:
            command = foldex("log", "--data-dir", str(tmp_path / "data"), "--type", "account_opened")
            following = await asyncio.create_subprocess_exec(
                *command, "--follow", "--json", env=environment(), stdout=asyncio.subprocess.PIPE
            )
            assert following.stdout is not None
            async with asyncio.timeout(DEADLINE_S):
                for label in ("before", "behind"):
                    await client.ask(OpenAccount(label=label))
                    row = json.loads(await following.stdout.readline())
                    assert label == row["fields"]["label"]
                following.send_signal(signal.SIGINT)
                assert config.EXIT_OK == await following.wait()


def test_a_reader_that_has_seen_enough_ends_it_quietly(log_dir: tuple[Path, str]) -> None:
    """Closing the pipe, as `head` does, is no error."""
    command = foldex("log", "--data-dir", str(log_dir[0]))
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert (config.EXIT_OK, b"") == (process.wait(DEADLINE_S), said)


def test_status_is_0_only_for_the_living(tmp_path: Path) -> None:
    """A heartbeat that has not expired is life; no heartbeat, and no server, is none."""
    data_dir = tmp_path / "data"
    assert config.EXIT_NOT_ALIVE == run("status", "--data-dir", data_dir).exit_code
    with EmbeddedServer(data_dir) as server:
        client = redis.Redis(unix_socket_path=server.socket_path)
        client.set(alive_key("writer"), msgspec.json.encode({"pid": 17, "seq": 3}), px=60_000)
        client.close()
        alive = run("status", "--data-dir", data_dir, "--process", "writer", "--json")
        assert (config.EXIT_OK, {"writer": {"pid": 17, "seq": 3}}) == (
            alive.exit_code,
            json.loads(alive.stdout),
        )
        assert config.EXIT_NOT_ALIVE == run("status", "--data-dir", data_dir, "--process", "feed").exit_code
        assert config.EXIT_NOT_ALIVE == run("status", "--data-dir", data_dir).exit_code


@pytest.mark.parametrize("command", ["replay", "log", "writer"])
def test_a_directory_without_a_log_is_named(tmp_path: Path, command: str) -> None:
    """A wrong directory gives one line and its exit code, and is not made."""
    result = run(command, "--data-dir", tmp_path / "none")
    assert config.EXIT_UNAVAILABLE == result.exit_code
    assert f"there is no log in {tmp_path / 'none'}" in result.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["replay", "log"])
def test_a_server_without_a_log_is_named(tmp_path: Path, command: str) -> None:
    """An empty server is not an empty exchange, in a directory or elsewhere."""
    with EmbeddedServer(tmp_path / "data") as server:
        for place in (["--data-dir", tmp_path / "data"], ["--redis-url", server.socket_path]):
            result = run(command, *place)
            assert (config.EXIT_UNAVAILABLE, "") == (result.exit_code, result.stdout)
            assert "there is no log" in result.stderr


def test_a_typed_directory_beats_the_environment(
    log_dir: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """REDIS_URL stands for what is not typed; typing both is refused."""
    data_dir, digest = log_dir
    monkeypatch.setenv(config.REDIS_URL_ENV, f"unix://{data_dir}/nobody.sock")
    assert digest == json.loads(run("replay", "--data-dir", data_dir, "--json").stdout)["digest"]
    assert config.EXIT_UNAVAILABLE == run("replay").exit_code


@pytest.mark.parametrize(
    "command", ["writer", "intake", "liquidator", "archiver", "feed", "maker", "status", "replay", "log"]
)
def test_a_directory_and_a_server_exclude_each_other(tmp_path: Path, command: str) -> None:
    """It cannot be told which of the two was meant, in whatever order they stand."""
    place = ["--data-dir", tmp_path / "data"], ["--redis-url", "redis://127.0.0.1:1"]
    for options in (place, place[::-1]):
        result = run(command, *options[0], *options[1])
        assert config.EXIT_USAGE == result.exit_code
        assert "--data-dir" in said(result)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("url", ["redis://[bad", "http://127.0.0.1:1", "127.0.0.1:6379", "redis://a:b:c"])
def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A malformed address is wrong usage, typed or from the environment, which is then named."""
    typed = run("replay", "--redis-url", url)
    assert config.EXIT_USAGE == typed.exit_code
    assert "not an address of a server" in said(typed)
    monkeypatch.setenv(config.REDIS_URL_ENV, url)
    for command in ("up", "writer", "status", "log"):
        result = run(command)
        assert config.EXIT_USAGE == result.exit_code
        assert f"from {config.REDIS_URL_ENV}" in said(result)


@pytest.mark.parametrize(
    ("kind", "name", "known"),
    [
        ("events", "nope", "market_listed"),
        ("events", "place_order", "order_accepted"),
        ("commands", "trade", "place_order"),
    ],
)
def test_an_unknown_type_is_refused(log_dir: tuple[Path, str], kind: str, name: str, known: str) -> None:
    """A type that the stream cannot hold is wrong usage; the message lists those that it can."""
    result = run("log", "--data-dir", log_dir[0], "--kind", kind, "--type", name)
    assert (config.EXIT_USAGE, "") == (result.exit_code, result.stdout)
    assert known in said(result)


def test_an_unlisted_market_is_named(log_dir: tuple[Path, str]) -> None:
    """Nothing about a market that was never listed is wrong usage; the message has those that were."""
    result = run("log", "--data-dir", log_dir[0], "--market", "NOPE")
    assert (config.EXIT_USAGE, "") == (result.exit_code, result.stdout)
    assert "NOPE is not listed in this log; listed: BTCUSDT, ETHUSDT" in said(result)


async def test_what_was_asked_of_an_unlisted_market_is_printed(tmp_path: Path) -> None:
    """A refused command is in the log all the same; that the market is not listed stands on stderr."""
    data_dir = str(tmp_path / "data")
    options = ("--data-dir", data_dir, "--kind", "commands", "--market", "NOPE", "--json")
    with EmbeddedServer(data_dir) as server:
        async with exchange(server.socket_path) as client:
            await client.ask(CancelAllOrders(account_id=ALICE, market="NOPE"))
            for more in ((), ("--follow",)):
                reading = await asyncio.create_subprocess_exec(
                    *foldex("log", *options, *more),
                    env=environment(),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                assert reading.stdout is not None
                assert reading.stderr is not None
                async with asyncio.timeout(DEADLINE_S):
                    assert "cancel_all_orders" == json.loads(await reading.stdout.readline())["type"]
                    assert b"NOPE is not listed in this log; listed: none" in await reading.stderr.readline()
                    if more:
                        reading.send_signal(signal.SIGINT)
                    assert config.EXIT_OK == await reading.wait()


@pytest.mark.parametrize("sources", [["none", "synthetic"], ["none", "a.csv"], ["synthetic", "a.csv"]])
def test_a_feed_that_stands_alone_takes_no_other(tmp_path: Path, sources: list[str]) -> None:
    """No feed and a feed, or generated and recorded prices, are refused before anything is started."""
    result = run("up", "--data-dir", tmp_path / "data", "--feed", *sources)
    assert config.EXIT_USAGE == result.exit_code
    assert f"{sources[0]} stands alone" in said(result)
    assert not (tmp_path / "data").exists()


def test_a_server_that_does_not_keep_the_log_is_refused(tmp_path: Path) -> None:
    """A process ends at once on a server with eviction, and says which setting to change."""
    with EmbeddedServer(tmp_path / "data") as server:
        client = redis.Redis(unix_socket_path=server.socket_path)
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.close()
        command = foldex("writer", "--redis-url", f"unix://{server.socket_path}")
        ended = subprocess.run(command, env=environment(), capture_output=True, timeout=DEADLINE_S)
    assert config.EXIT_SETTINGS == ended.returncode
    assert b"set maxmemory-policy noeviction" in ended.stderr


@pytest.mark.parametrize("process", ["writer", "intake", "up"])
def test_a_server_that_is_no_redis_is_named(tmp_path: Path, process: str) -> None:
    """A web server at the address is asked a few times, named, and given up with exit code 3."""
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        serving = threading.Thread(target=other.serve_forever)
        serving.start()
        port = other.server_address[1]
        command = foldex(process, "--redis-url", f"redis://127.0.0.1:{port}")
        ended = subprocess.run(
            command, env=environment(), cwd=tmp_path, capture_output=True, timeout=DEADLINE_S
        )
        other.shutdown()
        serving.join()
    assert config.EXIT_UNAVAILABLE == ended.returncode, ended.stderr
    assert f"what answers at 127.0.0.1:{port} is no Redis or Valkey server" in ended.stderr.decode()


def test_help_names_the_exit_codes() -> None:
    """`foldex --help` tells what each exit code means."""
    printed = " ".join(run("--help").stdout.split())
    for code, meaning in config.EXIT_MEANINGS.items():
        assert f"{code} {meaning}" in printed
