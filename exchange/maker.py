"""The house market maker: quotes both sides of every market around its index, through the HTTP API.

It is a customer like any other: an account with a large deposit, in cross margin, that keeps a ladder of
limit orders. It looks at the index ten times a second and quotes anew when the price has moved or part of
the ladder was taken.

Its inventory is bounded twice. The whole ladder leans against it, so that the side that brings it home is
the more attractive one; and the side that would add to it shrinks, to nothing at the limit.
"""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

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

LABEL = "house market maker"
# Of an order that is filled or has expired already.
UNKNOWN_ORDER = -2011

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerSettings:
    """How the maker quotes. Money is quote; distances and moves are fractions of the price.

    A ladder has `levels` orders a side, each worth `level_notional`, the first `half_spread` from its
    centre and the others `level_gap` apart. At `inventory_max` the centre leans by `lean_max`.
    """

    deposit: Decimal = Decimal(50_000_000)
    leverage: int = 10
    levels: int = 5
    level_notional: Decimal = Decimal(150_000)
    half_spread: Decimal = Decimal("0.0003")
    level_gap: Decimal = Decimal("0.0005")
    lean_max: Decimal = Decimal("0.0010")
    inventory_max: Decimal = Decimal(20_000_000)
    move_min: Decimal = Decimal("0.0002")
    interval_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Quote:
    """One order of a ladder, as the API takes it."""

    side: str
    price: str
    quantity: str


def ladder(
    contract: Contract, index: Decimal, inventory: Decimal, settings: MakerSettings
) -> tuple[Quote, ...]:
    """Return the orders to have around `index` (quote) while holding `inventory` (signed base).

    Levels too small for the contract are left out.
    """
    used = max(Decimal(-1), min(Decimal(1), inventory * index / settings.inventory_max))
    centre = index * (1 - used * settings.lean_max)
    quotes: list[Quote] = []
    for side, sign in (("BUY", 1), ("SELL", -1)):
        room = min(Decimal(1), 1 - sign * used)
        for level in range(settings.levels):
            distance = settings.half_spread + level * settings.level_gap
            price = contract.price_text(centre * (1 - sign * distance), side)
            quantity = contract.quantity_text(settings.level_notional * room, Decimal(price))
            if quantity is not None:
                quotes.append(Quote(side, price, quantity))
    return tuple(quotes)


async def run_maker(
    base_url: str,
    admin_url: str,
    *,
    stop: asyncio.Event,
    settings: MakerSettings | None = None,
    credentials_file: Path | None = None,
) -> None:
    """Make markets until `stop` is set, then take the orders away.

    Waits for the exchange and for markets to be listed; an exchange that goes away is waited for as well.
    A maker that starts again trades on for the account in `credentials_file`, orders and inventory included;
    the file is made when the account is opened. Without a file each run opens an account.

    Raises:
        ApiRefusal: the administrators' listener refuses to open the account.
        ApiUnavailable: it does not answer.
        OSError: the credentials file cannot be read or written.
    """
    settings = settings or MakerSettings()
    async with house_connection(base_url) as connection, Connection(admin_url) as admin:
        listed = await until_listed(connection, stop)
        if not listed:
            return
        account = await house_account(connection, admin, credentials_file, settings.deposit, LABEL)
        logger.info("maker_ready", account_id=account.credentials.account_id, markets=sorted(listed))
        makers = [_MarketMaker(account, contract, settings) for contract in listed.values()]
        while not stop.is_set():
            await _quote_all(connection, makers)
            await wait_set(stop, settings.interval_s)
        await asyncio.gather(*(maker.withdraw() for maker in makers))


class _MarketMaker:
    """The maker's ladder in one market."""

    def __init__(self, account: AccountApi, contract: Contract, settings: MakerSettings) -> None:
        self.symbol = contract.symbol
        self._account = account
        self._contract = contract
        self._settings = settings
        self._is_set_up = False
        self._quoted_index = Decimal(0)
        self._quoted: tuple[Quote, ...] = ()

    async def refresh(self, index: Decimal) -> None:
        """Quote anew where that is due; what fails is tried again by the next refresh."""
        try:
            if not self._is_set_up:
                await self._account.set_leverage(self.symbol, self._settings.leverage)
                self._is_set_up = True
            if await self._is_due(index):
                await self._requote(index)
        except (ApiRefusal, ApiUnavailable) as error:
            self._quoted_index = Decimal(0)
            logger.warning("maker_not_quoting", market=self.symbol, error=str(error))

    async def withdraw(self) -> None:
        """Cancel the ladder."""
        try:
            await self._account.cancel_all(self.symbol)
        except (ApiRefusal, ApiUnavailable) as error:
            logger.warning("maker_orders_left", market=self.symbol, error=str(error))

    async def _is_due(self, index: Decimal) -> bool:
        if abs(index - self._quoted_index) > index * self._settings.move_min:
            return True
        orders = await self._account.open_orders(self.symbol)
        untouched = sum(Decimal(order["executedQty"]) == 0 for order in orders)
        return untouched < len(self._quoted)

    async def _requote(self, index: Decimal) -> None:
        """Put a new ladder into the book, then take the old one out: the book is never without quotes.

        Where the price has moved so far that the two would trade with each other, the old orders expire.
        """
        inventory = Decimal(await self._account.position_size(self.symbol))
        quotes = ladder(self._contract, index, inventory, self._settings)
        old = [order["orderId"] for order in await self._account.open_orders(self.symbol)]
        outcomes = await asyncio.gather(*(self._place(quote) for quote in quotes), return_exceptions=True)
        await asyncio.gather(*(self._cancel(order_id) for order_id in old))
        failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        # Known again only when all of it stands: otherwise the next refresh starts over.
        self._quoted_index = Decimal(0) if failed else index
        self._quoted = quotes
        for error in failed:
            if not isinstance(error, ApiRefusal | ApiUnavailable):
                raise error
        if failed:
            logger.warning(
                "maker_orders_refused", market=self.symbol, count=len(failed), first=str(failed[0])
            )

    async def _cancel(self, order_id: int) -> None:
        try:
            await self._account.cancel(self.symbol, order_id)
        except ApiRefusal as refusal:
            if refusal.code != UNKNOWN_ORDER:
                raise

    async def _place(self, quote: Quote) -> None:
        await self._account.limit_order(self.symbol, quote.side, quote.quantity, quote.price)


async def _quote_all(connection: Connection, makers: list[_MarketMaker]) -> None:
    try:
        indices = await index_prices(connection)
    except (ApiRefusal, ApiUnavailable) as error:
        logger.warning("maker_without_prices", error=str(error))
        return
    await asyncio.gather(
        *(maker.refresh(indices[maker.symbol]) for maker in makers if maker.symbol in indices)
    )
