"""What an intake counts of itself, for Prometheus: requests, refusals, answers' times, entries, lag.

Counting is on the way of every order, so it is plain integers here; they become the text that Prometheus
reads when it asks. Labels have few values: a call of the endpoint table, a method of the WebSocket API, or
"other".
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from events.log import LogUnavailableError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
NS_PER_S = 1_000_000_000
_ACK_S = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 10.0)
_BYTES = (256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0)
_COUNTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1_024.0, 4_096.0)

# The last entry handled by each process that shows that it lives, by name.
Consumers = Callable[[], Awaitable[dict[str, int]]]

logger = structlog.get_logger(__name__)


class Spread:
    """A histogram: how many values were at most each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        """Return the histogram as Prometheus has it: cumulative."""
        rows: list[tuple[str, float]] = []
        count = 0
        for bound, here in zip((*self._bounds, None), self._counts, strict=True):
            count += here
            rows.append(("+Inf" if bound is None else f"{bound:g}", count))
        return HistogramMetricFamily(name, text, buckets=rows, sum_value=self._total)


class Metrics(Collector):
    """The numbers of one intake. `place` gives the last entry read and how many wait behind it."""

    def __init__(self, place: Callable[[], tuple[int, int]]) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.refusals: Counter[int] = Counter()
        self.ack_s = Spread(_ACK_S)
        self.entry_bytes = Spread(_BYTES)
        self.entry_commands = Spread(_COUNTS)
        self.events = 0
        self.sockets = 0
        self._place = place
        self._consumers: dict[str, int] = {}

    def entry(self, groups: int, events: int, body_bytes: int) -> None:
        """Count an entry of the log that was read: a group for each command behind the frame's own."""
        self.entry_commands.add(groups - 1)
        self.entry_bytes.add(body_bytes)
        self.events += events

    async def text(self, consumers: Consumers | None) -> bytes:
        """Return all numbers in the form that Prometheus reads."""
        if consumers is not None:
            try:
                self._consumers = await consumers()
            except LogUnavailableError as error:
                logger.warning("consumers_not_read", error=str(error))
                self._consumers = {}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers, for the registry of one answer."""
        requests = CounterMetricFamily(
            "foldex_requests", "Requests answered, by call and HTTP status.", labels=("call", "status")
        )
        for (call, status), count in self.answers.items():
            requests.add_metric((call, str(status)), count)
        refusals = CounterMetricFamily(
            "foldex_refusals", "Requests refused, by the code of the answer.", labels=("code",)
        )
        for code, count in self.refusals.items():
            refusals.add_metric((str(code),), count)
        seq, lag = self._place()
        lags = GaugeMetricFamily(
            "foldex_consumer_lag_entries",
            "Entries between the last one read here and the last one a process says that it handled.",
            labels=("process",),
        )
        for process, handled in self._consumers.items():
            lags.add_metric((process,), max(0, seq - handled))
        yield requests
        yield refusals
        yield self.ack_s.family("foldex_order_ack_seconds", "From an order's arrival to its answer.")
        yield self.entry_bytes.family("foldex_entry_bytes", "Size of the event entries read.")
        yield self.entry_commands.family("foldex_entry_commands", "Commands in the entries read.")
        yield CounterMetricFamily("foldex_events", "Events read from the log.", value=self.events)
        yield GaugeMetricFamily("foldex_seq", "The last entry read from the log.", value=seq)
        yield GaugeMetricFamily(
            "foldex_intake_lag_entries", "Entries that wait for the writer, or to be read here.", value=lag
        )
        yield GaugeMetricFamily(
            "foldex_ws_api_connections", "Open connections of the WebSocket API.", value=self.sockets
        )
        yield lags
