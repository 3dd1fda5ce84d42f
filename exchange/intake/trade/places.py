"""Where positions stand in the order of deleveraging, for whoever asks about his own."""

from events.values import Side
from exchange.aggregate.market import Market
from exchange.aggregate.ranking import rank
from exchange.aggregate.state import Exchange
from exchange.intake.projection import NS_PER_MS

# A ranking takes a few µs a position: made once in so many ms, it takes a hundredth of the time at most.
AGE_MS_MIN = 1_000
AGE_MS_PER_POSITION = 1


class Places:
    """Rankings as they were a moment ago: a second, and a millisecond for each position on the side."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Side], tuple[int, dict[tuple[int, int], int]]] = {}

    def of(self, state: Exchange, market: Market, side: Side, key: tuple[int, int]) -> tuple[int, int]:
        """Return the place from 0 of a position (account and leg) among those of its side, and their number.

        One that is not ranked yet stands last.
        """
        now_ms = state.now_ns // NS_PER_MS
        known = self._known.get((market.symbol, side))
        if known is None or now_ms - known[0] > AGE_MS_MIN + AGE_MS_PER_POSITION * len(known[1]):
            places = {each: place for place, each in enumerate(rank(state.accounts, market, side).keys)}
            known = self._known[market.symbol, side] = (now_ms, places)
        count = len(known[1])
        return known[1].get(key, max(0, count - 1)), count
