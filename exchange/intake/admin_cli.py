"""`foldex admin`: what an administrator does to a running exchange, from a terminal.

Each command is one or a few calls to the intake's administrator listener. Exit codes: 1 when the exchange
refuses, 2 for wrong usage, 3 when nobody answers.
"""

import http.client
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from events.values import MarketStatus
from exchange.intake.specs import DEFAULT_FORMS

EXIT_REFUSED = 1
EXIT_UNREACHABLE = 3
TIMEOUT_S = 30.0
ADMIN_URL_DEFAULT = "http://127.0.0.1:8001"

app = typer.Typer(
    name="admin",
    help="Administer a running exchange: accounts, money, markets, index prices. Talks to the intake's "
    "administrator listener (for `foldex up --port P` it is at port P + 1).",
    no_args_is_help=True,
)
account_app = typer.Typer(help="Accounts and their keys.", no_args_is_help=True)
market_app = typer.Typer(help="Markets.", no_args_is_help=True)
app.add_typer(account_app, name="account")
app.add_typer(market_app, name="market")

AdminUrl = Annotated[
    str,
    typer.Option(
        "--admin-url", envvar="FOLDEX_ADMIN_URL", help="Address of the intake's administrator listener."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as one line of JSON.")]
AccountId = Annotated[int, typer.Argument(min=0, help="Number of the account; 0 is the insurance fund.")]
Amount = Annotated[str, typer.Argument(help="Quote currency, as a decimal with at most 8 digits: 1000.50")]
Symbol = Annotated[str, typer.Argument(help="Market, such as BTCUSDT.")]


class AdminRefusedError(Exception):
    """The exchange answered that it will not; the message is its own.

    `made` holds what came into being all the same: the credentials of an account that got no money.
    """

    def __init__(self, code: int, text: str, made: dict[str, Any]) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.made = made


class AdminUnreachableError(Exception):
    """Nobody answered at the address, or not as the listener does."""


def call_admin(admin_url: str, method: str, path: str, body: object = None) -> Any:
    """Make one call to the administrator listener; return its decoded answer.

    Raises:
        AdminRefusedError: the exchange refused it.
        AdminUnreachableError: no connection, no answer in time, or an answer that is none of the listener's.
    """
    address = urlsplit(admin_url)
    if address.scheme != "http" or not address.hostname:
        raise AdminUnreachableError(f"{admin_url}: must be http://HOST:PORT")
    try:
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)
        try:
            content = None if body is None else msgspec.json.encode(body)
            headers = {"Content-Type": "application/json"} if content is not None else {}
            connection.request(method, f"/admin/v1/{path}", content, headers)
            response = connection.getresponse()
            status, answer = response.status, response.read()
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise AdminUnreachableError(f"{admin_url}: {error}") from error
    try:
        decoded = msgspec.json.decode(answer)
        if status == http.client.OK:
            return decoded
        raise AdminRefusedError(decoded.pop("code"), decoded.pop("msg"), decoded)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, AttributeError, KeyError):
        raise AdminUnreachableError(f"{admin_url}: no administrator listener (status {status})") from None


@account_app.command("create")
def create_account(
    deposit: Annotated[str, typer.Option(help="Quote currency to begin with.")] = "0",
    label: Annotated[str, typer.Option(help="A name for people.")] = "",
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """Open an account with an API key. The secret is shown once and stored nowhere readable."""
    answer = _call(admin_url, "POST", "account", {"deposit": deposit, "label": label})
    _show(answer, as_json)


Reason = Annotated[str, typer.Option(help="Why, for the record.")]


@account_app.command("unblock")
def unblock_account(
    account: AccountId, reason: Reason, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Let an account trade again that was blocked after failed commands."""
    body = {"account_id": account, "reason": reason}
    _show(_call(admin_url, "POST", "account/unblock", body), as_json)


@app.command("halt")
def halt_exchange(reason: Reason, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """Restrict every market to cancels; stop liquidation and withdrawals."""
    _show_halt(_call(admin_url, "POST", "halt", {"reason": reason}), as_json)


@app.command("resume")
def resume_exchange(reason: Reason, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """End a halt. Sums that do not add up are accepted as they are, on the record."""
    _show_halt(_call(admin_url, "POST", "resume", {"reason": reason}), as_json)


@app.command("deposit")
def deposit_money(
    account: AccountId, amount: Amount, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Bring money into an account."""
    _show(_call(admin_url, "POST", "deposit", {"account_id": account, "amount": amount}), as_json)


@app.command("withdraw")
def withdraw_money(
    account: AccountId, amount: Amount, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Take money out of an account, at most what is withdrawable."""
    _show(_call(admin_url, "POST", "withdraw", {"account_id": account, "amount": amount}), as_json)


@app.command("insurance")
def fund_insurance(
    symbol: Symbol, amount: Amount, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Bring money into the insurance fund, for a market."""
    fund = _call(admin_url, "POST", "insurance", {"symbol": symbol, "amount": amount})
    if as_json:
        _show(fund, as_json)
        return
    rows = fund.pop("markets")
    _show(fund, False)
    _show_rows("insurance fund", rows)


@app.command("index")
def set_index_price(
    symbol: Symbol,
    price: Annotated[str, typer.Argument(help="Index price, a multiple of the market's tick.")],
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """Set a market's index price by hand, for tests and demonstrations."""
    _show(_call(admin_url, "POST", "index", {"symbol": symbol, "price": price}), as_json)


@market_app.command("list")
def list_market(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.json", exists=True, dir_okay=False, readable=True, help="Contract specification."
        ),
    ],
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """List a market; docs/market.md has the file's format, which POST /admin/v1/market takes too."""
    try:
        form = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file}: {error}") from None
    _show(_call(admin_url, "POST", "market", form), as_json)


@market_app.command("list-defaults")
def list_default_markets(as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """List BTCUSDT and ETHUSDT, where they are not listed yet."""
    known = {row["symbol"] for row in _call(admin_url, "GET", "state")["markets"]}
    listed = [form.symbol for form in DEFAULT_FORMS if form.symbol not in known]
    for form in DEFAULT_FORMS:
        if form.symbol in listed:
            _call(admin_url, "POST", "market", form)
    _show({"listed": listed}, as_json)


@market_app.command("status")
def set_status(
    symbol: Symbol,
    status: Annotated[str, typer.Argument(help=f"One of {', '.join(MarketStatus.__members__)}.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "administrator",
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """Open a market, restrict it to cancels, or halt it."""
    name = status.upper().replace("-", "_")
    if name not in MarketStatus.__members__:
        raise typer.BadParameter(f"{status!r} is none of {', '.join(MarketStatus.__members__)}")
    body = {"symbol": symbol, "status": name, "reason": reason}
    _show(_call(admin_url, "POST", "market/status", body), as_json)


@app.command("state")
def show_state(as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """Show the exchange as of the last entry: digest, markets, insurance fund, liquidations."""
    state = _call(admin_url, "GET", "state")
    if as_json:
        _show(state, as_json)
        return
    markets, fund = state.pop("markets"), state.pop("insurance_fund")
    state["blocked_accounts"] = [str(account_id) for account_id in state["blocked_accounts"]]
    state["position_gaps"] = _gaps(state)
    _show({**state, "liquidations": state["liquidations"]["total"], "insurance_fund": fund["wallet"]}, False)
    _show_rows("markets", markets)
    _show_rows("insurance fund", fund["markets"])


def _call(admin_url: str, method: str, path: str, body: object = None) -> Any:
    try:
        return call_admin(admin_url, method, path, body)
    except AdminRefusedError as error:
        if error.made:
            _show(error.made, as_json=True)
        typer.echo(f"refused: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    except AdminUnreachableError as error:
        typer.echo(f"not reachable: {error}", err=True)
        raise typer.Exit(EXIT_UNREACHABLE) from None


def _show_halt(answer: dict[str, Any], as_json: bool) -> None:
    _show(answer if as_json else {**answer, "position_gaps": _gaps(answer)}, as_json)


def _gaps(answer: dict[str, Any]) -> list[str]:
    return [f"{symbol} {lots}" for symbol, lots in answer["position_gaps"].items()]


def _show(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(answer).decode())
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        shown = ", ".join(value) or "nothing" if isinstance(value, list) else value
        typer.echo(f"{name:<{width}}  {shown}")


def _show_rows(title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
