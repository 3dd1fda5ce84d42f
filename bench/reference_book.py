"""The yardstick: a plain price-time priority book of dictionaries and heaps, as quick as that shape gets.

A side is a dictionary of prices to queues and a heap of those prices; a price whose queue ran empty is
discarded when it comes to the top of the heap. A queue is a dictionary of its orders by id, which keeps
their order of arrival and gives up any of them at once. It knows no totals per level, and checks nothing.
"""

from heapq import heappop, heappush

from events.values import BUY, Side

Order = list[int]  # id, key, open lots: a list of ints is the cheapest mutable record there is
Queue = dict[int, Order]
Trade = tuple[int, int, int, int]  # maker id, taker id, price in ticks, lots


class ReferenceBook:
    """Open limit orders of one market. Keys are prices, negated for bids, so that the least is the best."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[Queue, Order]] = {}
        self.bids: dict[int, Queue] = {}
        self.asks: dict[int, Queue] = {}
        self.bid_heap: list[int] = []
        self.ask_heap: list[int] = []

    def place(
        self, order_id: int, side: Side, price_ticks: int, lots: int, rests: bool, trades: list[Trade]
    ) -> None:
        """Trade an order, noting each trade, and let what is left rest unless it does not."""
        if side is BUY:
            key, heap, queues = -price_ticks, self.ask_heap, self.asks
        else:
            key, heap, queues = price_ticks, self.bid_heap, self.bids
        worst_key = -key
        while heap and heap[0] <= worst_key:
            queue = queues[heap[0]]
            if not queue:
                del queues[heappop(heap)]
                continue
            maker = next(iter(queue.values()))
            maker_id, maker_key, maker_lots = maker
            if maker_lots > lots:
                maker[2] -= lots
                trades.append((maker_id, order_id, abs(maker_key), lots))
                return
            del queue[maker_id], self.orders[maker_id]
            trades.append((maker_id, order_id, abs(maker_key), maker_lots))
            lots -= maker_lots
            if not lots:
                return
        if rests:
            self._insert(order_id, side, key, lots)

    def _insert(self, order_id: int, side: Side, key: int, lots: int) -> None:
        queues = self.bids if side is BUY else self.asks
        queue = queues.get(key)
        if queue is None:
            queue = queues[key] = {}
            heappush(self.bid_heap if side is BUY else self.ask_heap, key)
        order = [order_id, key, lots]
        queue[order_id] = order
        self.orders[order_id] = (queue, order)

    def cancel(self, order_id: int) -> None:
        """Take an order out if it is there; its price stays on the heap."""
        known = self.orders.pop(order_id, None)
        if known is not None:
            del known[0][order_id]
