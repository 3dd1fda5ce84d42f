"""Index prices: where they come from (recorded candles, a seeded generator) and how they reach the log."""

from exchange.feed.process import FeedSummary, Submit, run_feed
from exchange.feed.recorded import RecordedSource, open_recorded
from exchange.feed.source import FeedError, Price, PricePoint, PriceSource, round_to_ticks
from exchange.feed.synthetic import SyntheticSource, open_calm, open_crash

__all__ = [
    "FeedError",
    "FeedSummary",
    "Price",
    "PricePoint",
    "PriceSource",
    "RecordedSource",
    "Submit",
    "SyntheticSource",
    "open_calm",
    "open_crash",
    "open_recorded",
    "round_to_ticks",
    "run_feed",
]
