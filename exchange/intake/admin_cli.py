"""`foldex admin`: what an administrator does to a running exchange, from a terminal.

Each command is one or a few calls to the intake's administrator listener. Exit codes: 1 when the exchange
refuses, 2 for wrong usage, 3 when nobody answers.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from events.values import MarketStatus
from exchange.intake.admin_call import (
    ADMIN_URL_DEFAULT,
    AccountId,
    AdminUrl,
    Amount,
    AsJson,
    Symbol,
    call_or_exit,
    show,
    show_rows,
)
from exchange.intake.admin_keys_cli import Networks, Permissions, PublicKey, terms
from exchange.intake.admin_keys_cli import app as key_app
from exchange.intake.specs import DEFAULT_FORMS

app = typer.Typer(
    name="admin",
    help="Administer a running exchange: accounts, money, markets, index prices. Talks to the intake's "
    "administrator listener (for `foldex up --port P` it is at port P + 1).",
    no_args_is_help=True,
)
account_app = typer.Typer(help="Accounts and their keys.", no_args_is_help=True)
market_app = typer.Typer(help="Markets.", no_args_is_help=True)
app.add_typer(account_app, name="account")
app.add_typer(key_app, name="key")
app.add_typer(market_app, name="market")


@account_app.command("create")
def create_account(
    deposit: Annotated[str, typer.Option(help="Quote currency to begin with.")] = "0",
    label: Annotated[str, typer.Option(help="A name for people.")] = "",
    permission: Permissions = None,
    network: Networks = None,
    public_key: PublicKey = None,
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """Open an account with an API key. The secret is shown once and stored nowhere readable."""
    answer = call_or_exit(
        admin_url,
        "POST",
        "account",
        {"deposit": deposit, "label": label, **terms(permission, network, public_key)},
    )
    show(answer, as_json)


Reason = Annotated[str, typer.Option(help="Why, for the record.")]


@account_app.command("unblock")
def unblock_account(
    account: AccountId, reason: Reason, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Let an account trade again that was blocked after failed commands."""
    body = {"account_id": account, "reason": reason}
    show(call_or_exit(admin_url, "POST", "account/unblock", body), as_json)


@app.command("halt")
def halt_exchange(reason: Reason, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """Restrict every market to cancels; stop liquidation and withdrawals."""
    _show_halt(call_or_exit(admin_url, "POST", "halt", {"reason": reason}), as_json)


@app.command("resume")
def resume_exchange(reason: Reason, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """End a halt. Sums that do not add up are accepted as they are, on the record."""
    _show_halt(call_or_exit(admin_url, "POST", "resume", {"reason": reason}), as_json)


@app.command("deposit")
def deposit_money(
    account: AccountId, amount: Amount, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Bring money into an account."""
    show(call_or_exit(admin_url, "POST", "deposit", {"account_id": account, "amount": amount}), as_json)


@app.command("withdraw")
def withdraw_money(
    account: AccountId, amount: Amount, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Take money out of an account, at most what is withdrawable."""
    show(call_or_exit(admin_url, "POST", "withdraw", {"account_id": account, "amount": amount}), as_json)


@app.command("insurance")
def fund_insurance(
    symbol: Symbol, amount: Amount, as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT
) -> None:
    """Bring money into the insurance fund, for a market."""
    fund = call_or_exit(admin_url, "POST", "insurance", {"symbol": symbol, "amount": amount})
    if as_json:
        show(fund, as_json)
        return
    rows = fund.pop("markets")
    show(fund, False)
    show_rows("insurance fund", rows)


@app.command("index")
def set_index_price(
    symbol: Symbol,
    price: Annotated[str, typer.Argument(help="Index price, a multiple of the market's tick.")],
    as_json: AsJson = False,
    admin_url: AdminUrl = ADMIN_URL_DEFAULT,
) -> None:
    """Set a market's index price by hand, for tests and demonstrations."""
    show(call_or_exit(admin_url, "POST", "index", {"symbol": symbol, "price": price}), as_json)


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
    show(call_or_exit(admin_url, "POST", "market", form), as_json)


@market_app.command("list-defaults")
def list_default_markets(as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """List BTCUSDT and ETHUSDT, where they are not listed yet."""
    known = {row["symbol"] for row in call_or_exit(admin_url, "GET", "state")["markets"]}
    listed = [form.symbol for form in DEFAULT_FORMS if form.symbol not in known]
    for form in DEFAULT_FORMS:
        if form.symbol in listed:
            call_or_exit(admin_url, "POST", "market", form)
    show({"listed": listed}, as_json)


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
    show(call_or_exit(admin_url, "POST", "market/status", body), as_json)


@app.command("state")
def show_state(as_json: AsJson = False, admin_url: AdminUrl = ADMIN_URL_DEFAULT) -> None:
    """Show the exchange as of the last entry: digest, markets, insurance fund, liquidations."""
    state = call_or_exit(admin_url, "GET", "state")
    if as_json:
        show(state, as_json)
        return
    markets, fund = state.pop("markets"), state.pop("insurance_fund")
    state["blocked_accounts"] = [str(account_id) for account_id in state["blocked_accounts"]]
    state["position_gaps"] = _gaps(state)
    show({**state, "liquidations": state["liquidations"]["total"], "insurance_fund": fund["wallet"]}, False)
    show_rows("markets", markets)
    show_rows("insurance fund", fund["markets"])


def _show_halt(answer: dict[str, Any], as_json: bool) -> None:
    show(answer if as_json else {**answer, "position_gaps": _gaps(answer)}, as_json)


def _gaps(answer: dict[str, Any]) -> list[str]:
    return [f"{symbol} {lots}" for symbol, lots in answer["position_gaps"].items()]
