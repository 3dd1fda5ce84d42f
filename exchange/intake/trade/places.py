"""Where positions stand in the order of deleveraging, for whoever asks about his own."""

from events.values import Side
from exchange.aggregate.market import Market
from exchange.aggregate.ranking import rank
from exchange.aggregate.state import Exchange

AGE_MS_MAX = 1_000


class Places:
    """Rankings as they were up to a second ago: one is made in a time that grows with all positions."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Side], tuple[int, int, dict[tuple[int, int], int]]] = {}

    def of(self, state: Exchange, market: Market, side: Side, key: tuple[int, int]) -> tuple[int, int]:
        """Return the place from 0 of a position (account and leg) among those of its side, and their number.

        One that is not ranked yet stands last.
        """
        now_ms = state.now_ns // 1_000_000
        known = self._known.get((market.symbol, side))
        if known is None or known[0] != market.mark_ticks or now_ms - known[1] > AGE_MS_MAX:
            places = {each: place for place, each in enumerate(rank(state.accounts, market, side).keys)}
            known = self._known[market.symbol, side] = (market.mark_ticks, now_ms, places)
        count = len(known[2])
        return known[2].get(key, max(0, count - 1)), count
