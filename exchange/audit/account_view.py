"""An account as it was: money, positions, orders, and the health of each of its buckets."""

from decimal import Decimal, InvalidOperation
from typing import Any

from events.values import ISOLATED
from exchange.aggregate.account import Account, Position, position_key
from exchange.aggregate.margin import bucket_equity, maintenance, margin_ratio
from exchange.aggregate.order import Order
from exchange.aggregate.state import Exchange
from exchange.audit.printer import readable
from exchange.audit.replay import time_text
from exchange.audit.travel import NotInLogError
from exchange.calc.report import margin_figures
from exchange.decimals import average_price_text, format_fixed, lots_text, money_text, price_text

View = dict[str, Any]


def account_view(state: Exchange, account_id: int) -> View:
    """Return an account as plain data, amounts as decimal text. Rows are keyed, so that views compare.

    `pool` is the wallet with its cross positions; a position's `equity` and `margin_ratio` are those of the
    bucket it stands on. There is no ratio without equity, and no price where there is no positive one.

    Raises:
        NotInLogError: there is no such account at that moment.
    """
    account = state.accounts.get(account_id)
    if account is None:
        last = state.next_account_id - 1
        raise NotInLogError(f"there is no account {account_id} at entry {state.seq}; the last one is {last}")
    held = [p for _, p in sorted(account.positions.items()) if p.size_lots]
    figures = margin_figures(account, held)
    specs = {symbol: market.spec for symbol, market in state.markets.items()}
    rows = zip(held, figures.pop("positions"), strict=True)
    return {
        "seq": state.seq,
        "time": time_text(state.now_ns),
        "account_id": account_id,
        "label": account.label,
        "position_mode": "hedge" if account.hedge else "one_way",
        "blocked": account_id in state.blocked,
        "wallet": money_text(account.wallet),
        "pool": figures,
        "positions": {position_key(p.market.symbol, p.leg): _position(account, p, row) for p, row in rows},
        "orders": {str(order.order_id): _order(order) for order in account.orders.values()},
        "conditional_orders": {
            str(number): readable(terms, specs) for number, terms in account.conditionals.items()
        },
    }


def _position(account: Account, position: Position, figures: View) -> View:
    spec = position.market.spec
    is_isolated = position.mode is ISOLATED
    equity = bucket_equity(account, position)
    own = margin_ratio(equity, maintenance(position)) if is_isolated else None
    return {
        "market": position.market.symbol,
        "leg": position.leg.name.lower(),
        "margin_mode": position.mode.name.lower(),
        "leverage": position.leverage,
        "size": lots_text(spec, position.size_lots),
        "entry_price": average_price_text(spec, position.entry_cost, position.size_lots),
        "entry_cost": money_text(position.entry_cost),
        "mark": price_text(spec, position.market.mark_ticks),
        "bucket": money_text(position.bucket) if is_isolated else None,
        "equity": money_text(equity),
        **{name: value for name, value in figures.items() if name not in ("market", "leg")},
        **({"margin_ratio": format_fixed(own) if own is not None else None} if is_isolated else {}),
    }


def _order(order: Order) -> View:
    spec, terms = order.position.market.spec, order.terms
    return {
        "market": terms.market,
        "leg": terms.leg.name.lower(),
        "side": order.side.name.lower(),
        "price": price_text(spec, order.price_ticks),
        "quantity": lots_text(spec, order.quantity_lots),
        "open": lots_text(spec, order.open_lots),
        "time_in_force": terms.time_in_force.name,
        "reduce_only": order.reduce_only,
        "client_order_id": terms.client_order_id,
    }


def changes(before: View, after: View, prefix: str = "") -> list[View]:
    """Return the fields in which two views differ, with what decimals changed by.

    A row that only one of them has, such as an order, is one field.
    """
    found: list[View] = []
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name), after.get(name)
        if isinstance(was, dict) and isinstance(now, dict):
            found += changes(was, now, f"{prefix}{name}.")
        elif was != now:
            change = _difference(was, now)
            found.append({"field": prefix + name, "before": was, "after": now, "change": change})
    return found


def _difference(before: object, after: object) -> str | None:
    if not isinstance(before, str) or not isinstance(after, str):
        return None
    try:
        return f"{Decimal(after) - Decimal(before):+f}"
    except InvalidOperation:
        return None
