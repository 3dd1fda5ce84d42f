"""What the commands of `foldex admin` share: the call to the administrator's listener, what it looks like."""

import http.client
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer
from rich.console import Console
from rich.table import Table

EXIT_REFUSED = 1
EXIT_UNREACHABLE = 3
TIMEOUT_S = 30.0
ADMIN_URL_DEFAULT = "http://127.0.0.1:8001"

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


def call_or_exit(admin_url: str, method: str, path: str, body: object = None) -> Any:
    """Make one call; a refusal becomes a message and exit code 1, no answer one and 3."""
    try:
        return call_admin(admin_url, method, path, body)
    except AdminRefusedError as error:
        if error.made:
            show(error.made, as_json=True)
        typer.echo(f"refused: {error}", err=True)
        raise typer.Exit(EXIT_REFUSED) from None
    except AdminUnreachableError as error:
        typer.echo(f"not reachable: {error}", err=True)
        raise typer.Exit(EXIT_UNREACHABLE) from None


def show(answer: dict[str, Any], as_json: bool) -> None:
    """Print an answer: a line a field, or JSON."""
    if as_json:
        typer.echo(msgspec.json.encode(answer).decode())
        return
    width = max(map(len, answer))
    for name, value in answer.items():
        shown = ", ".join(value) or "nothing" if isinstance(value, list) else value
        typer.echo(f"{name:<{width}}  {shown}")


def show_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as a table, nothing when there are none."""
    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        # A key that is cut short is of no use.
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
