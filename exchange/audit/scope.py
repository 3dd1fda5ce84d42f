"""Which messages are about an account and a market, as `foldex log` asks.

Most name both. Of those that do not, the state tells: funding names a market, and so does a loss that others
share, and both concern every account whose money they changed; a liquidation of the cross pool names no
market, and concerns those of its positions until its end.
"""

import msgspec

from events.events import Event, FundingSettled, LiquidationFinished, LiquidationStarted, LossSocialised
from exchange.aggregate.state import Exchange

# Tables whose rows are accounts that an event also concerns.
_PARTIES = frozenset({"parties", "closed", "holes"})


class Scope:
    """An account and a market to look for; None is any. Asked about every event of a log in order."""

    def __init__(self, account_id: int | None, market: str | None) -> None:
        self._account_id = account_id
        self._market = market
        self._state = Exchange()
        # Liquidations of the cross pool that touch the market and have not ended.
        self._liquidations: set[int] = set()

    def covers_command(self, command: msgspec.Struct) -> bool:
        """Tell whether a command names what is looked for."""
        return self._names_account(command) and self._names_market(command)

    def covers(self, event: Event) -> bool:
        """Tell whether the next event is about what is looked for."""
        is_charged = self._account_id is not None and self._follow(event, self._account_id)
        is_meant = self._names_market(event) or self._ends(event)
        if is_meant and isinstance(event, LiquidationStarted) and not event.market:
            self._liquidations.add(event.liquidation_id)
        return is_meant and (is_charged or self._names_account(event))

    def _follow(self, event: Event, account_id: int) -> bool:
        """Apply an event; return whether it changed the account's money without naming it."""
        if not isinstance(event, FundingSettled | LossSocialised):
            self._state.apply(event)
            return False
        before = self._money(account_id)
        self._state.apply(event)
        return before != self._money(account_id)

    def _money(self, account_id: int) -> list[int]:
        account = self._state.accounts.get(account_id)
        if account is None:
            return []
        return [account.wallet, *(position.bucket for position in account.positions.values())]

    def _names_account(self, message: msgspec.Struct) -> bool:
        if self._account_id is None:
            return True
        names = message.__struct_fields__
        accounts = [getattr(message, name) for name in names if name.endswith("account_id")]
        for table in _PARTIES.intersection(names):
            accounts.extend(row.account_id for row in getattr(message, table))
        return self._account_id in accounts

    def _names_market(self, message: msgspec.Struct) -> bool:
        if self._market is None:
            return True
        names = message.__struct_fields__
        markets = {getattr(message, "market", None)}
        if "spec" in names:
            markets.add(message.spec.symbol)  # type: ignore[attr-defined]
        if "rows" in names:
            markets.update(row.market for row in message.rows)  # type: ignore[attr-defined]
        return self._market in markets

    def _ends(self, event: Event) -> bool:
        """Whether an event ends a liquidation of a cross pool that touched the market."""
        if not isinstance(event, LiquidationFinished) or event.liquidation_id not in self._liquidations:
            return False
        self._liquidations.remove(event.liquidation_id)
        return True
