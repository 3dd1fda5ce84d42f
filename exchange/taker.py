"""The house taker: small market orders at random times, so that prices print and candles form.

A venue where nobody trades has no last price, no candles and no volume, and a bot that looks at them waits
for ever. Like the house market maker it is a customer with an account, and it trades through the API. Its
side is random, and the more likely one is the one that brings its inventory home.
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random

import structlog

from exchange.client import (
    AccountApi,
    ApiRefusal,
    ApiUnavailable,
    Connection,
    Contract,
    house_account,
    house_connection,
    index_prices,
    until_listed,
)
from exchange.runtime import wait_set

LABEL = "house taker"

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakerSettings:
    """How the taker trades. Money is quote.

    An order is worth up to `notional_max`, evenly distributed; at an inventory worth `inventory_max` it only
    trades the side that reduces it.
    """

    deposit: Decimal = Decimal(5_000_000)
    notional_max: Decimal = Decimal(20_000)
    inventory_max: Decimal = Decimal(500_000)


async def run_taker(
    base_url: str,
    admin_url: str,
    *,
    trades_per_s: float,
    stop: asyncio.Event,
    settings: TakerSettings | None = None,
    credentials_file: Path | None = None,
    random: Random | None = None,
) -> None:
    """Trade in every market, `trades_per_s` times a second in all on average, until `stop` is set.

    Waits for the exchange and for markets to be listed; `credentials_file` is as the maker's.

    Raises:
        ApiRefusal: the administrators' listener refuses to open the account.
        ApiUnavailable: it does not answer.
        OSError: the credentials file cannot be read or written.
    """
    settings, random = settings or TakerSettings(), random or Random()  # noqa: S311 - nobody bets on it
    async with house_connection(base_url) as connection, Connection(admin_url) as admin:
        listed = await until_listed(connection, stop)
        if not listed:
            return
        account = await house_account(connection, admin, credentials_file, settings.deposit, LABEL)
        logger.info("taker_ready", account_id=account.credentials.account_id, trades_per_s=trades_per_s)
        contracts = list(listed.values())
        while not await wait_set(stop, random.expovariate(trades_per_s)):
            try:
                await _trade(connection, account, random.choice(contracts), settings, random)
            except (ApiRefusal, ApiUnavailable) as error:
                logger.warning("taker_not_trading", error=str(error))


async def _trade(
    connection: Connection, account: AccountApi, contract: Contract, settings: TakerSettings, random: Random
) -> None:
    index = (await index_prices(connection)).get(contract.symbol, Decimal(0))
    if not index:
        return
    inventory = Decimal(await account.position_size(contract.symbol)) * index
    # From 1 (certainly sell) at the largest long inventory to 0 at the largest short one.
    chance_of_sell = 0.5 + float(inventory / settings.inventory_max) / 2
    side = "SELL" if random.random() < chance_of_sell else "BUY"
    notional = settings.notional_max * Decimal(random.random())
    quantity = contract.quantity_text(max(notional, contract.min_notional * 2), index)
    if quantity is not None:
        await account.market_order(contract.symbol, side, quantity)
