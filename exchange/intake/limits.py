"""How much one address and one account may ask: Binance's request weights, order counts, connections.

Weights are counted by address and minute, orders by account, ten seconds and minute; the windows are those
of the clock, as the headers of every answer tell. WebSocket connections are counted by address: attempts in
five minutes, and those open at a time. Cancels have a budget of their own, as large: whoever has used up the
one for everything else can still take risk away. An address that goes on after being told 429 is shut out
(418), each time for twice as long.

What is limited protects callers from each other. On one machine all of them are one's own, so by default
only what comes from another machine is refused; what comes from loopback is counted and told, and passes.
The house's own traders pass in any case: a bot that is shut out must not take the market with it.

Refusals at the gate have a pace instead, which binds everybody: whoever sends nonsense at full speed is
answered at that pace, and so sends no faster; those who send what can be served do not notice.

Memory is bounded: the addresses seen last are remembered, an IPv6 network of 64 bits as one.
"""

import math
from collections import Counter, OrderedDict
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

from exchange import config
from exchange.config import Enforce
from exchange.intake.errors import (
    BANNED,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_CONNECTS,
    TOO_MANY_ORDERS,
    TOO_MANY_REQUESTS,
    ApiError,
)
from exchange.intake.networks import parse_address

MS_PER_MINUTE = 60_000
MS_PER_10_S = 10_000
MS_PER_5_MINUTES = 300_000
ADDRESSES_MAX = 10_000
# So many requests after the first 429 of a minute are answered 429 too; the next one is banned.
REFUSALS_MAX = 50
BAN_FIRST_MS = 120_000
BAN_MAX_MS = 3 * 24 * 3_600_000
# So many refusals of an address are answered at once, and so many a second after them.
PACE_BURST = 50
PACE_PER_S = 100
PACE_WAIT_S_MAX = 2.0
# Those that wait are answered together: to wake for each costs several times what is to be done.
PACE_TURN_S = 0.05
_IPV6_HOST_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The numbers that exchangeInfo tells, and whom they bind. Binance's own unless told otherwise."""

    weight_1m: int = config.WEIGHT_1M_DEFAULT
    orders_10s: int = config.ORDERS_10S_DEFAULT
    orders_1m: int = config.ORDERS_1M_DEFAULT
    connects_5m: int = config.CONNECTS_5M_DEFAULT
    connections: int = config.CONNECTIONS_DEFAULT
    enforce: Enforce = Enforce.REMOTE

    def rows(self) -> list[dict[str, Any]]:
        """Return the limits as exchangeInfo lists them."""
        return [_row("REQUEST_WEIGHT", "MINUTE", 1, self.weight_1m), *self.order_rows()]

    def order_rows(self) -> list[dict[str, Any]]:
        """Return those of an account's orders, as `GET /fapi/v1/rateLimit/order` lists them."""
        return [
            _row("ORDERS", "SECOND", 10, self.orders_10s),
            _row("ORDERS", "MINUTE", 1, self.orders_1m),
        ]


DEFAULT_LIMITS: Final = Limits()


class AddressUse:
    """What an address has used in its minute, and until when it is banned (ms).

    `connects` are the connections that it asked for in its five minutes.
    """

    __slots__ = (
        "bans",
        "cancels",
        "connects",
        "five_minutes",
        "is_bound",
        "minute",
        "name",
        "paced_s",
        "refusals",
        "unban_ms",
        "weight",
    )

    def __init__(self, name: str, *, is_bound: bool) -> None:
        self.name = name
        self.is_bound = is_bound
        self.minute = 0
        self.weight = 0
        self.cancels = 0
        self.refusals = 0
        self.bans = 0
        self.unban_ms = 0
        self.five_minutes = 0
        self.connects = 0
        self.paced_s = 0.0


class PerSecond:
    """Counts what a connection sends within a second, which begins with the first of it."""

    __slots__ = ("_began_s", "_count", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._began_s = -1.0
        self._count = 0

    def is_over(self, now_s: float) -> bool:
        """Count one more; return whether it is too much. `now_s` is monotonic."""
        if now_s - self._began_s >= 1.0:
            self._began_s = now_s
            self._count = 0
        self._count += 1
        return self._count > self._most


class LimitError(ApiError):
    """Too much was asked; `retry_s` says when to come back."""

    def __init__(self, error: ApiError, retry_s: int) -> None:
        super().__init__(error.code, error.text, error.status)
        self.retry_s = retry_s


class Usage:
    """Counts what addresses and accounts use, and refuses what is too much."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._addresses: OrderedDict[str, AddressUse] = OrderedDict()
        # Beside what is remembered of addresses: it holds until the last connection is closed.
        self._open: Counter[str] = Counter()
        self._minute = 0
        self._ten_seconds = 0
        self._orders_1m: dict[int, int] = {}
        self._orders_10s: dict[int, int] = {}

    def address(self, remote: str, now_ms: int) -> AddressUse:
        """Return what an address has used up to now.

        Raises:
            LimitError: 418, it is banned.
        """
        use = self.peer(remote)
        minute = now_ms // MS_PER_MINUTE
        if use.minute != minute:
            use.minute = minute
            use.weight = use.cancels = use.refusals = 0
        if use.unban_ms > now_ms:
            raise _banned(use, now_ms)
        return use

    def peer(self, remote: str) -> AddressUse:
        """Return what is known of an address, banned or not; its counts may be of a minute that is over."""
        use = self._addresses.get(remote)
        if use is None:
            use = self._remember(remote)
        elif len(self._addresses) > ADDRESSES_MAX // 2:
            self._addresses.move_to_end(use.name)
        return use

    def refusal_wait_s(self, remote: str, now_s: float) -> float:
        """Count a refusal of an address; return how long its answer has to wait. `now_s` is monotonic.

        It is a leaky bucket: `paced_s` is when the refusals so far are through at their pace. It holds no
        more than the longest wait, so that a flood from many connections is no debt of who comes after it.
        """
        use = self.peer(remote)
        use.paced_s = max(use.paced_s, now_s - PACE_BURST / PACE_PER_S) + 1 / PACE_PER_S
        use.paced_s = min(use.paced_s, now_s + PACE_WAIT_S_MAX)
        if use.paced_s <= now_s:
            return 0.0
        turn_s = math.ceil(use.paced_s / PACE_TURN_S) * PACE_TURN_S
        return min(turn_s - now_s, PACE_WAIT_S_MAX)

    def charge(self, use: AddressUse, weight: int, now_ms: int, *, is_cancel: bool = False) -> None:
        """Count a request of an address.

        Raises:
            LimitError: 429, with this request it is too much; or 418, it went on too long.
        """
        if is_cancel:
            use.cancels += weight
            used = use.cancels
        else:
            use.weight += weight
            used = use.weight
        if use.is_bound and used > self.limits.weight_1m > 0 and weight:
            error = TOO_MANY_REQUESTS.error(address=use.name, limit=self.limits.weight_1m)
            raise self._refuse(use, error, now_ms, MS_PER_MINUTE)

    def connect(self, use: AddressUse, now_ms: int) -> None:
        """Count a WebSocket connection that an address asks for, and as open until `disconnect`.

        Raises:
            ApiError: 429, it has asked for too many, or has too many open; or 418, it went on too long. Then
                it does not count as open.
        """
        five_minutes = now_ms // MS_PER_5_MINUTES
        if use.five_minutes != five_minutes:
            use.five_minutes = five_minutes
            use.connects = 0
        use.connects += 1
        limits = self.limits
        if use.is_bound and use.connects > limits.connects_5m > 0:
            error = TOO_MANY_CONNECTS.error(address=use.name, limit=limits.connects_5m)
            raise self._refuse(use, error, now_ms, MS_PER_5_MINUTES)
        if use.is_bound and self._open[use.name] >= limits.connections > 0:
            raise TOO_MANY_CONNECTIONS.error(address=use.name, limit=limits.connections)
        self._open[use.name] += 1

    def disconnect(self, use: AddressUse) -> None:
        """Count a connection of an address as closed."""
        self._open[use.name] -= 1
        if not self._open[use.name]:
            del self._open[use.name]

    def count_order(self, account_id: int, orders: int, use: AddressUse, now_ms: int) -> None:
        """Count the orders of an account that came from an address.

        Raises:
            LimitError: 429, they are too many.
        """
        self._turn_orders(now_ms)
        in_10s = self._orders_10s[account_id] = self._orders_10s.get(account_id, 0) + orders
        in_1m = self._orders_1m[account_id] = self._orders_1m.get(account_id, 0) + 1
        if not use.is_bound:
            return
        limits = self.limits
        if in_10s > limits.orders_10s > 0:
            error = TOO_MANY_ORDERS.error(limit=limits.orders_10s, interval="10 SECOND")
            raise LimitError(error, _left_s(now_ms, MS_PER_10_S))
        if in_1m > limits.orders_1m > 0:
            error = TOO_MANY_ORDERS.error(limit=limits.orders_1m, interval="1 MINUTE")
            raise LimitError(error, _left_s(now_ms, MS_PER_MINUTE))

    def orders(self, account_id: int, now_ms: int) -> tuple[int, int]:
        """Return how many orders of an account count in the ten seconds and in the minute."""
        self._turn_orders(now_ms)
        return self._orders_10s.get(account_id, 0), self._orders_1m.get(account_id, 0)

    def _turn_orders(self, now_ms: int) -> None:
        ten_seconds = now_ms // MS_PER_10_S
        if ten_seconds == self._ten_seconds:
            return
        self._ten_seconds = ten_seconds
        self._orders_10s.clear()
        minute = now_ms // MS_PER_MINUTE
        if minute != self._minute:
            self._minute = minute
            self._orders_1m.clear()

    def _remember(self, remote: str) -> AddressUse:
        address = parse_address(remote)
        name = remote
        if isinstance(address, IPv6Address):
            name = str(IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS))
        use = self._addresses.get(name)
        if use is not None:
            self._addresses.move_to_end(name)
        else:
            # A unix socket's peer has no address, and is on this machine.
            is_local = address is None or address.is_loopback
            enforce = self.limits.enforce
            is_bound = enforce is Enforce.ALL or (enforce is Enforce.REMOTE and not is_local)
            is_bound = is_bound and name != config.HOUSE_ADDRESS
            use = self._addresses[name] = AddressUse(name, is_bound=is_bound)
            if len(self._addresses) > ADDRESSES_MAX:
                self._addresses.popitem(last=False)
        return use

    def _refuse(self, use: AddressUse, error: ApiError, now_ms: int, window_ms: int) -> LimitError:
        use.refusals += 1
        if use.refusals > REFUSALS_MAX:
            use.unban_ms = now_ms + min(BAN_MAX_MS, BAN_FIRST_MS << min(use.bans, 20))
            use.bans += 1
            use.refusals = 0
            return _banned(use, now_ms)
        return LimitError(error, _left_s(now_ms, window_ms))


def _banned(use: AddressUse, now_ms: int) -> LimitError:
    error = BANNED.error(address=use.name, until=use.unban_ms)
    return LimitError(error, -(-(use.unban_ms - now_ms) // 1_000))


def _left_s(now_ms: int, window_ms: int) -> int:
    """Return how many seconds a window of the clock still lasts, rounded up."""
    return -(-(window_ms - now_ms % window_ms) // 1_000)


def _row(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}
