"""What every request passes, over HTTP or a WebSocket: address, key, time, signature, parameters, limits.

The order of checks is the one clients see at Binance: key, timestamp, signature, then parameters, then what
the call itself finds. A request that fails one of them has cost its address something all the same.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from exchange.intake.access import Access, Caller
from exchange.intake.endpoint import Endpoint, Values
from exchange.intake.errors import PAST_UNREAD, SHUTTING_DOWN, UNKNOWN, ApiError
from exchange.intake.limits import AddressUse, Usage
from exchange.intake.market.data import wall_clock_ms
from exchange.intake.metrics import NS_PER_S, OTHER
from exchange.intake.service import Intake

REFUSED_WEIGHT = 1
OK_STATUS = 200

logger = structlog.get_logger(__name__)


class Call:
    """One request: who is asking what from where. `account_id` is 0 until a key says whose it is.

    `name` is what the call is counted under; `is_admitted` tells that the gate has let it through.
    """

    __slots__ = (
        "account_id",
        "is_admitted",
        "is_order",
        "name",
        "now_ms",
        "remote",
        "request_id",
        "started_ns",
        "use",
    )

    def __init__(self, request_id: str, remote: str, now_ms: int) -> None:
        self.started_ns = time.perf_counter_ns()
        self.name = OTHER
        self.is_admitted = False
        self.is_order = False
        self.request_id = request_id
        self.remote = remote
        self.now_ms = now_ms
        self.account_id = 0
        self.use: AddressUse | None = None


class Gate:
    """Lets requests through to the handlers. Set `closing` to refuse whatever comes from then on."""

    def __init__(self, intake: Intake) -> None:
        self.closing = False
        self.intake = intake
        self.access = Access(intake.keys)
        self.usage = Usage(intake.limits)
        # Bound once: the proxy would be set up anew for every line, even for those that are not written.
        self._log = logger.bind()
        self._request_prefix = secrets.token_hex(4)
        self._request_numbers = itertools.count(1)

    def call(self, remote: str) -> Call:
        """Return a new request from an address, as of now."""
        return Call(f"{self._request_prefix}-{next(self._request_numbers)}", remote, wall_clock_ms())

    def check_address(self, call: Call) -> AddressUse:
        """Note which address a request is from.

        Raises:
            ApiError: -1016, the intake is closing; -1003, the address is banned.
        """
        if self.closing:
            raise SHUTTING_DOWN.error()
        use = call.use = self.usage.address(call.remote, call.now_ms)
        return use

    @contextmanager
    def connection(self, call: Call, weight: int = 0) -> Iterator[None]:
        """Let a WebSocket connection in, for as long as the context lasts: from its handshake to its end.

        Raises:
            ApiError: as `check_address`; -1003, its address has used up its weight, asks for too many
                connections or has too many.
        """
        use = self.check_address(call)
        if weight:
            self.usage.charge(use, weight, call.now_ms)
        self.usage.connect(use, call.now_ms)
        try:
            yield
        finally:
            self.usage.disconnect(use)

    def admit(
        self,
        call: Call,
        endpoint: Endpoint,
        sent: Callable[[], dict[str, str]],
        authenticate: Callable[[dict[str, str]], Caller | None],
    ) -> Values:
        """Return the values of a request that may go to its handler.

        `sent` takes the request's parameters apart; `authenticate` looks at those that concern its key and
        signature, and takes them out.

        Raises:
            ApiError: the first thing that is wrong.
        """
        use = self.check_address(call)
        try:
            parameters = sent()
            caller = authenticate(parameters)
            if caller is not None:
                call.account_id = caller.account_id
            values = endpoint.reader.read(parameters)
            weight = endpoint.weight
            if not isinstance(weight, int):
                weight = weight(values)
        except ApiError:
            self.usage.charge(use, REFUSED_WEIGHT, call.now_ms)
            raise
        if weight:
            self.usage.charge(use, weight, call.now_ms, is_cancel=endpoint.is_cancel)
        if endpoint.is_order:
            call.is_order = True
            orders = endpoint.orders
            count = orders if isinstance(orders, int) else orders(values)
            self.usage.count_order(call.account_id, count, use, call.now_ms)
        if endpoint.needs_past and not self.intake.has_past:
            raise PAST_UNREAD.error()
        call.is_admitted = True
        return values

    def refused(self, call: Call, path: str, error: ApiError) -> None:
        """Note a refusal."""
        metrics = self.intake.metrics
        metrics.answers[call.name, error.status] += 1
        metrics.refusals[error.code] += 1
        log = self._log.warning if error.status >= 500 else self._log.debug
        log(
            "request_refused",
            request=call.request_id,
            path=path,
            account=call.account_id,
            seq=self.intake.state.seq,
            code=error.code,
            message=error.text,
        )

    async def pace(self, remote: str, transport: asyncio.Transport | None) -> None:
        """Wait for the turn of a refusal at the gate; its connection is not read meanwhile.

        What comes on it stays with who sends it. Nobody waits any more once the intake closes.
        """
        wait_s = self.usage.refusal_wait_s(remote, time.monotonic())
        if not wait_s or self.closing or transport is None:
            return
        # Whoever else stopped the reading, for want of room, goes on with it as well.
        is_read = transport.is_reading()
        if is_read:
            transport.pause_reading()
        await asyncio.sleep(wait_s)
        if is_read and not transport.is_closing():
            transport.resume_reading()

    def failed(self, call: Call, path: str, error: Exception) -> ApiError:
        """Note an exception, which is a defect of ours; return what the caller gets."""
        self.intake.metrics.answers[call.name, UNKNOWN.status] += 1
        self._log.error(
            "request_failed", request=call.request_id, path=path, account=call.account_id, exc_info=error
        )
        return UNKNOWN.error()

    def answered(self, call: Call, path: str) -> None:
        """Note an answer."""
        metrics = self.intake.metrics
        metrics.answers[call.name, OK_STATUS] += 1
        if call.is_order:
            metrics.ack_s.add((time.perf_counter_ns() - call.started_ns) / NS_PER_S)
        self._log.debug(
            "request_answered",
            request=call.request_id,
            path=path,
            account=call.account_id,
            seq=self.intake.state.seq,
        )
