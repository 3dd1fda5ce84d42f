"""The administrator's listener: accounts and their keys, money, markets, index prices, the state.

It has no authentication of its own: it is bound to loopback, and whoever can reach it rules the exchange.
What is posted must say that it is JSON, and be addressed to an address or a local name: web pages in a local
browser can do neither, the second not even when they give their own name the listener's address. What is only
read, sums of the exchange and metrics, is told under any name.

Forms hold amounts and prices as decimal strings, in USDT. What a form asks in vain is an `ApiError`.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import structlog
from aiohttp import web

from events.commands import (
    AllotInsurance,
    Deposit,
    HaltExchange,
    ListMarket,
    OpenAccount,
    ResumeExchange,
    SetIndexPrice,
    SetMarketStatus,
    UnblockAccount,
    Withdraw,
)
from events.events import AccountOpened
from events.values import IndexSource, MarketStatus
from exchange.aggregate import margin
from exchange.aggregate.account import FUND_ACCOUNT_ID
from exchange.aggregate.administration import LABEL_CHARS_MAX
from exchange.aggregate.market import Market
from exchange.aggregate.state import Exchange
from exchange.aggregate.units import AMOUNT_MAX
from exchange.decimals import DecimalError, lots_text, money_text, parse_money, parse_price, price_text
from exchange.intake.admin_keys import (
    BAD_BODY,
    AccountId,
    AccountKeysForm,
    Form,
    KeyForm,
    KeyRemovalForm,
    KeyTerms,
    add_key,
    check_terms,
    list_keys,
    new_key,
    remove_key,
)
from exchange.intake.errors import SHUTTING_DOWN, UNKNOWN, ApiError, RefusedError
from exchange.intake.metrics import CONTENT_TYPE, Consumers
from exchange.intake.networks import parse_address
from exchange.intake.service import Intake
from exchange.intake.specs import MarketForm, SpecError, market_spec

BODY_BYTES_MAX = 256 * 1024
REASON_CHARS_MAX = 200
INDEX_SOURCE = "admin"
BAD_MEDIA_TYPE_STATUS = 415
WRONG_HOST_STATUS = 421

logger = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode


class AccountForm(KeyTerms, frozen=True):
    """Open an account with a key, and money if `deposit` says so."""

    deposit: str = "0"
    label: Annotated[str, msgspec.Meta(max_length=LABEL_CHARS_MAX)] = ""


class AmountForm(Form, frozen=True):
    """Bring money into an account, or take it out."""

    account_id: AccountId
    amount: str


class InsuranceForm(Form, frozen=True):
    """Bring money into the insurance fund, for one market."""

    symbol: str
    amount: str


class IndexForm(Form, frozen=True):
    """Set a market's index price by hand."""

    symbol: str
    price: str


class StatusForm(Form, frozen=True):
    """Open, restrict or halt a market."""

    symbol: str
    status: str
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARS_MAX)] = "administrator"


class ReasonForm(Form, frozen=True):
    """Halt the exchange, or end the halt."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_CHARS_MAX)]


class UnblockForm(ReasonForm, frozen=True):
    """Let a blocked account trade again."""

    account_id: AccountId


class AccountUnfinishedError(ApiError):
    """An account was opened, and what should have followed failed; the answer holds its key all the same."""

    def __init__(self, error: ApiError, made: dict[str, Any]) -> None:
        text = f"account {made['account_id']} was opened, but: {_text_of(error)}"
        super().__init__(error.code, text, error.status)
        self.made = made


async def open_account(intake: Intake, form: AccountForm) -> object:
    """Open an account, give it a key, bring its first money in."""
    deposit = _money("deposit", form.deposit)
    if intake.state.deposited + deposit > AMOUNT_MAX:
        # The log would refuse it too, but only once the account is there.
        rest = money_text(AMOUNT_MAX - intake.state.deposited)
        raise ApiError(BAD_BODY, f"deposit: at most {rest}, so that all deposits together keep in range")
    check_terms(form)
    events = await intake.ask(OpenAccount(label=form.label))
    (opened,) = (event for event in events if isinstance(event, AccountOpened))
    account_id = opened.account_id
    key = new_key(intake, account_id, form)
    made = {"account_id": account_id, **key.shown}
    try:
        await intake.ask(key.command)
        if deposit:
            await intake.ask(Deposit(account_id=account_id, amount=deposit))
    except ApiError as error:
        raise AccountUnfinishedError(error, made) from error
    return made


async def deposit(intake: Intake, form: AmountForm) -> object:
    """Bring money into an account."""
    await intake.ask(Deposit(account_id=form.account_id, amount=_amount("amount", form.amount)))
    return _wallet(intake, form.account_id)


async def withdraw(intake: Intake, form: AmountForm) -> object:
    """Take money out of an account."""
    await intake.ask(Withdraw(account_id=form.account_id, amount=_amount("amount", form.amount)))
    return _wallet(intake, form.account_id)


async def fund_insurance(intake: Intake, form: InsuranceForm) -> object:
    """Bring money into the insurance fund and allot it to a market."""
    market, amount = intake.market(form.symbol), _amount("amount", form.amount)
    await intake.ask(Deposit(account_id=FUND_ACCOUNT_ID, amount=amount))
    await intake.ask(AllotInsurance(market=market.symbol, amount=amount))
    return _insurance(intake.state)


async def list_market(intake: Intake, form: MarketForm) -> object:
    """List a market."""
    try:
        spec = market_spec(form)
    except SpecError as error:
        raise ApiError(BAD_BODY, str(error)) from None
    await intake.ask(ListMarket(spec=spec))
    return {"symbol": spec.symbol}


async def set_market_status(intake: Intake, form: StatusForm) -> object:
    """Open, restrict or halt a market."""
    try:
        status = MarketStatus[form.status]
    except KeyError:
        names = ", ".join(MarketStatus.__members__)
        raise ApiError(BAD_BODY, f"status: must be one of {names}") from None
    await intake.ask(SetMarketStatus(market=form.symbol, status=status, reason=form.reason))
    return {"symbol": form.symbol, "status": status.name}


async def unblock_account(intake: Intake, form: UnblockForm) -> object:
    """Let a blocked account trade again."""
    await intake.ask(UnblockAccount(account_id=form.account_id, reason=form.reason))
    return {"account_id": form.account_id, "blocked": False}


async def halt_exchange(intake: Intake, form: ReasonForm) -> object:
    """Restrict every market to cancels; stop liquidation and withdrawals."""
    await intake.ask(HaltExchange(reason=form.reason))
    return _halt_row(intake.state)


async def resume_exchange(intake: Intake, form: ReasonForm) -> object:
    """End a halt; what does not add up is accepted as it is."""
    await intake.ask(ResumeExchange(reason=form.reason))
    return _halt_row(intake.state)


async def set_index(intake: Intake, form: IndexForm) -> object:
    """Set an index price; the answer has the mark that follows from it."""
    market = intake.market(form.symbol)
    try:
        price_ticks = parse_price(market.spec, form.price)
    except DecimalError as error:
        raise ApiError(BAD_BODY, f"price: {error}") from None
    spec = market.spec
    if not spec.min_price_ticks <= price_ticks <= spec.max_price_ticks:
        bounds = f"{price_text(spec, spec.min_price_ticks)}…{price_text(spec, spec.max_price_ticks)}"
        raise ApiError(BAD_BODY, f"price: must be in {bounds}")
    source = IndexSource(source=INDEX_SOURCE, price_ticks=price_ticks, raw=form.price)
    await intake.ask(SetIndexPrice(market=market.symbol, sources=(source,)))
    return {
        "symbol": market.symbol,
        "index": price_text(market.spec, market.index_ticks),
        "mark": price_text(market.spec, market.mark_ticks),
    }


def state_report(intake: Intake) -> object:
    """Describe the whole exchange as of the last entry read."""
    state = intake.state
    return {
        "seq": state.seq,
        "digest": state.digest().hex(),
        "log_id": state.log_id,
        "accounts": len(state.accounts) - 2,
        "trades": state.trade_count,
        "deposited": money_text(state.deposited),
        "withdrawn": money_text(state.withdrawn),
        **_halt_row(state),
        "blocked_accounts": sorted(state.blocked),
        "markets": [_market_row(state, market) for market in state.markets.values()],
        "insurance_fund": _insurance(state),
        "liquidations": {
            "total": state.liquidation_count,
            **{mode.name.lower(): count for mode, count in intake.liquidations.items()},
        },
    }


def admin_app(
    intake: Intake, is_closing: Callable[[], bool], consumers: Consumers | None = None
) -> web.Application:
    """Return the application of the administrator's listener. `consumers` tells how far others have come."""

    @web.middleware
    async def answer_errors(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if is_closing():
                raise SHUTTING_DOWN.error()
            return await handler(request)
        except ApiError as error:
            made = error.made if isinstance(error, AccountUnfinishedError) else {}
            return _json({"code": error.code, "msg": _text_of(error), **made}, error.status)
        except web.HTTPException as error:
            return _json({"code": BAD_BODY, "msg": error.reason}, error.status)
        except Exception:
            logger.exception("admin_request_failed", path=request.path, seq=intake.state.seq)
            unknown = UNKNOWN.error()
            return _json({"code": unknown.code, "msg": unknown.text}, unknown.status)

    app = web.Application(middlewares=[answer_errors], client_max_size=BODY_BYTES_MAX)
    for path, form, handler in (
        ("account", AccountForm, open_account),
        ("deposit", AmountForm, deposit),
        ("withdraw", AmountForm, withdraw),
        ("insurance", InsuranceForm, fund_insurance),
        ("market", MarketForm, list_market),
        ("market/status", StatusForm, set_market_status),
        ("index", IndexForm, set_index),
        ("account/unblock", UnblockForm, unblock_account),
        ("key", KeyForm, add_key),
        ("key/list", AccountKeysForm, list_keys),
        ("key/remove", KeyRemovalForm, remove_key),
        ("halt", ReasonForm, halt_exchange),
        ("resume", ReasonForm, resume_exchange),
    ):
        app.router.add_post(f"/admin/v1/{path}", _posted(intake, form, handler))

    async def report(request: web.Request) -> web.StreamResponse:
        return _json(state_report(intake))

    async def metrics(request: web.Request) -> web.StreamResponse:
        return web.Response(body=await intake.metrics.text(consumers), headers={"Content-Type": CONTENT_TYPE})

    app.router.add_get("/admin/v1/state", report)
    app.router.add_get("/metrics", metrics)
    return app


def _posted(
    intake: Intake, form: type[Any], handler: Callable[[Intake, Any], Awaitable[object]]
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    decoder = msgspec.json.Decoder(form)

    async def answer(request: web.Request) -> web.StreamResponse:
        _check_host(request.host)
        if request.content_type != "application/json":
            raise ApiError(BAD_BODY, "Content-Type: must be application/json", BAD_MEDIA_TYPE_STATUS)
        try:
            body = decoder.decode(await request.read())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiError(BAD_BODY, f"body: {error}") from None
        result = await handler(intake, body)
        logger.info("admin_request", path=request.path, seq=intake.state.seq)
        return _json(result)

    return answer


def _check_host(header: str) -> None:
    """Refuse what is addressed to a name of the public net, the only kind that a web page comes from."""
    host = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    if "." in host and not host.endswith(".localhost") and parse_address(host) is None:
        raise ApiError(BAD_BODY, "Host: must be an address, or a name without a dot", WRONG_HOST_STATUS)


def _json(content: object, status: int = 200) -> web.Response:
    return web.Response(body=_encode(content), status=status, content_type="application/json")


def _text_of(error: ApiError) -> str:
    """Return what is wrong; an administrator gets the aggregate's own words."""
    return error.rejected.reason if isinstance(error, RefusedError) else error.text


def _money(name: str, text: str) -> int:
    try:
        return parse_money(text)
    except DecimalError as error:
        raise ApiError(BAD_BODY, f"{name}: {error}") from None


def _amount(name: str, text: str) -> int:
    amount = _money(name, text)
    if amount == 0:
        raise ApiError(BAD_BODY, f"{name}: must be positive")
    return amount


def _wallet(intake: Intake, account_id: int) -> dict[str, Any]:
    return {"account_id": account_id, "wallet": money_text(intake.account(account_id).wallet)}


def _halt_row(state: Exchange) -> dict[str, Any]:
    """Say whether there is a halt and why, and by how much money and contracts do not add up."""
    lots = {s: lots_text(state.markets[s].spec, gap) for s, gap in sorted(state.lots_gaps.items())}
    return {
        "halted": state.halt is not None,
        "halt_reason": state.halt.reason if state.halt is not None else "",
        "money_gap": money_text(state.money_gap),
        "position_gaps": lots,
    }


def _insurance(state: Exchange) -> dict[str, Any]:
    fund = state.accounts[FUND_ACCOUNT_ID]
    return {
        "wallet": money_text(fund.wallet),
        "markets": [
            {
                "symbol": symbol,
                "allotment": money_text(own.bucket),
                "equity": money_text(margin.bucket_equity(fund, own)),
                "position": lots_text(own.market.spec, own.size_lots),
            }
            for symbol, own in fund.positions.items()
        ],
    }


def _market_row(state: Exchange, market: Market) -> dict[str, Any]:
    spec, book = market.spec, market.book
    return {
        "symbol": market.symbol,
        "status": market.status.name,
        "mark": price_text(spec, market.mark_ticks),
        "index": price_text(spec, market.index_ticks),
        "last": price_text(spec, market.last_ticks),
        "bid": price_text(spec, book.best_bid_ticks),
        "ask": price_text(spec, book.best_ask_ticks),
        "open_interest": lots_text(spec, market.open_interest_lots),
    }
