"""`foldex admin key`: an account's API keys, from a terminal."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from exchange.intake.admin_call import (
    ADMIN_URL_DEFAULT,
    AccountId,
    AdminUrl,
    AsJson,
    call_or_exit,
    show,
    show_rows,
)

app = typer.Typer(help="API keys: what they may do, and from where.", no_args_is_help=True)


class PermissionOption(StrEnum):
    """What a key may do."""

    READ = "read"
    TRADE = "trade"
    WITHDRAW = "withdraw"
    ADMINISTER = "administer"


Permissions = Annotated[
    list[PermissionOption] | None,
    typer.Option(
        "--permission",
        help="What the key may do: trade; take money out; look after the account's keys. Every key may read, "
        "and with `read` alone nothing else. Can be given more than once.  [default: read and trade]",
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option("--network", help="Only from this address or network (CIDR). Can be given more than once."),
]
PublicKey = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, readable=True, help="File with an Ed25519 public key: no secret is made."
    ),
]


def terms(
    permissions: list[PermissionOption] | None, networks: list[str] | None, public_key: Path | None
) -> dict[str, Any]:
    """Return the options as fields of a request; those that were not given are left to the exchange."""
    fields: dict[str, Any] = {}
    if permissions:
        fields["permissions"] = [permission.value for permission in permissions]
    if networks:
        fields["networks"] = networks
    if public_key is not None:
        try:
            fields["public_key"] = public_key.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"{public_key}: {error}") from None
    return fields


@app.command("add")
def add_key(
    account: AccountId,
    permission: Permissions = None,
    network: Networks = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """Give an account a further key. A secret is shown once and stored nowhere readable."""
    body = {"account_id": account, **terms(permission, network, public_key)}
    show(call_or_exit(admin_url, "POST", "key", body), as_json)


@app.command("list")
def list_keys(account: AccountId, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """Show an account's keys, without secrets."""
    answer = call_or_exit(admin_url, "POST", "key/list", {"account_id": account})
    if as_json:
        show(answer, as_json)
        return
    lists = ("permissions", "networks")
    show_rows("keys", [{**row, **{name: " ".join(row[name]) for name in lists}} for row in answer["keys"]])


@app.command("remove")
def remove_key(
    account: AccountId,
    api_key: Annotated[str, typer.Argument(help="The key itself.")],
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """End what a key may do, at once and for good."""
    show(call_or_exit(admin_url, "POST", "key/remove", {"account_id": account, "api_key": api_key}), as_json)
