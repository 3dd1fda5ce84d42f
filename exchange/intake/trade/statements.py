"""What an account is charged and was charged: brackets, fees, income; its limits; its listen key."""

import msgspec

from exchange.aggregate.market import Market
from exchange.aggregate.units import MONEY_ONE, RATE_ONE
from exchange.decimals import format_fixed, money_text
from exchange.intake.endpoint import Values
from exchange.intake.service import Intake
from exchange.intake.trade.answers import (
    BracketRow,
    CommissionRate,
    IncomeRow,
    LeverageBrackets,
    ListenKey,
    Nothing,
    RateLimit,
    TradingStatus,
)
from exchange.intake.trade.ledger import Income
from exchange.intake.trade.queries import DAY_MS, LOOKUP_DAYS_MAX, check_times, chosen

INCOME_ROWS_DEFAULT = 100
INCOME_SPAN_MS = LOOKUP_DAYS_MAX * DAY_MS
# Where no market has been listed, money came in all the same.
ASSET_DEFAULT = "USDT"


async def leverage_brackets(
    intake: Intake, account_id: int, values: Values
) -> LeverageBrackets | list[LeverageBrackets]:
    """Return the leverage table of one market, or a list of all."""
    symbol = values.get("symbol")
    if symbol is not None:
        return _brackets(intake.market(symbol))
    return [_brackets(market) for market in intake.state.markets.values()]


async def commission_rate(intake: Intake, account_id: int, values: Values) -> CommissionRate:
    """Return the fees of a market."""
    spec = intake.market(values["symbol"]).spec
    maker, taker = _fraction_text(spec.maker_fee), _fraction_text(spec.taker_fee)
    return CommissionRate(
        symbol=spec.symbol,
        maker_commission_rate=maker,
        taker_commission_rate=taker,
        rpi_commission_rate=maker,
    )


async def income(intake: Intake, account_id: int, values: Values) -> list[IncomeRow]:
    """Return what changed an account's money, oldest first; without a span, in the last seven days."""
    check_times(values)
    symbol, kind = values.get("symbol"), values.get("incomeType")
    if symbol is not None:
        intake.market(symbol)
    since_ms = 0 if "startTime" in values or "endTime" in values else intake.now_ms - INCOME_SPAN_MS
    rows = [
        row
        for row in intake.past.ledger.income(account_id)
        if row.time_ms >= since_ms and symbol in (None, row.symbol) and kind in (None, row.kind)
    ]
    found = chosen(rows, values, lambda row: row.time_ms, rows_default=INCOME_ROWS_DEFAULT)
    return [_income_row(intake, row) for row in found]


async def order_limits(intake: Intake, account_id: int, values: Values) -> list[RateLimit]:
    """Return how many orders an account may place."""
    return [msgspec.convert(row, RateLimit) for row in intake.limits.order_rows()]


async def trading_status(intake: Intake, account_id: int, values: Values) -> TradingStatus:
    """Return that nobody's behaviour is judged by indicators here."""
    if "symbol" in values:
        intake.market(values["symbol"])
    return TradingStatus(indicators={}, update_time=intake.now_ms)


async def start_listening(intake: Intake, account_id: int, values: Values) -> ListenKey:
    """Return the live key of the account's user stream, for another hour; a new one if there is none."""
    return ListenKey(listen_key=intake.listen_keys.start(account_id))


async def keep_listening(intake: Intake, account_id: int, values: Values) -> ListenKey:
    """Let the account's key live another hour."""
    return ListenKey(listen_key=intake.listen_keys.keep(account_id, values.get("listenKey")))


async def stop_listening(intake: Intake, account_id: int, values: Values) -> Nothing:
    """End the account's key; having none is no error, naming another's or one that ended is."""
    if "listenKey" in values:
        intake.listen_keys.keep(account_id, values["listenKey"])
    intake.listen_keys.stop(account_id)
    return Nothing()


def _brackets(market: Market) -> LeverageBrackets:
    table = market.brackets
    return LeverageBrackets(
        symbol=market.symbol,
        notional_coef=1.0,
        brackets=[
            BracketRow(
                bracket=n + 1,
                initial_leverage=leverage,
                notional_cap=_number(table.caps[n], MONEY_ONE),
                notional_floor=_number(table.floor(n), MONEY_ONE),
                maint_margin_ratio=table.rates[n] / RATE_ONE,
                cum=_number(table.deductions[n], MONEY_ONE * RATE_ONE),
            )
            for n, leverage in enumerate(table.leverages)
        ],
    )


def _number(amount: int, scale: int) -> int | float:
    return amount // scale if amount % scale == 0 else amount / scale


def _fraction_text(rate: int) -> str:
    return format_fixed(rate).rstrip("0").rstrip(".")


def _income_row(intake: Intake, row: Income) -> IncomeRow:
    markets = intake.state.markets
    market = markets.get(row.symbol) or next(iter(markets.values()), None)
    trade_id = str(row.trade_id) if row.trade_id else ""
    return IncomeRow(
        symbol=row.symbol,
        income_type=row.kind.value,
        income=money_text(row.amount),
        asset=market.spec.quote if market is not None else ASSET_DEFAULT,
        info=trade_id or row.kind.value,
        time=row.time_ms,
        tran_id=row.row_id,
        trade_id=trade_id,
    )
