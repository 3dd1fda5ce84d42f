"""A deliberately naive exchange of one market, to compare the aggregate with: lists, scans and copies.

It shares the language of commands with the aggregate and no code. Orders are dictionaries in one list that
is kept sorted by side, price and time; every question is a scan of it. It knows no margin and no fees, so
accounts must be rich. What a command does is said as tuples ("happenings"), which `happening` also makes of
the aggregate's events.
"""

from bisect import insort
from typing import Any

from events.commands import (
    AmendOrder,
    CancelAllConditionals,
    CancelAllOrders,
    CancelConditional,
    CancelOrder,
    Command,
    PlaceConditional,
    PlaceOrder,
    SetCountdown,
    Tick,
)
from events.events import (
    ConditionalAccepted,
    ConditionalCancelled,
    ConditionalRejected,
    ConditionalTriggered,
    CountdownExpired,
    CountdownSet,
    Event,
    FrameHeader,
    MarkPriceChanged,
    OrderAccepted,
    OrderAmended,
    OrderCancelled,
    OrderExpired,
    Rejected,
    TickPassed,
    TradeExecuted,
)
from events.values import (
    CloseReason,
    Leg,
    MarketSpec,
    OrderType,
    PriceMatch,
    RejectCode,
    SelfTrade,
    Side,
    TimeInForce,
    TriggerKind,
    WorkingPrice,
)

Row = dict[str, Any]
Happening = tuple[Any, ...]
ONE = 10**8
FIRST_MADE_ID = 2**52 + 1
RESTING = (TimeInForce.GTC, TimeInForce.GTX, TimeInForce.GTD)


class NaiveRefusal(Exception):
    """A command was refused, for `code`."""

    def __init__(self, code: RejectCode) -> None:
        super().__init__(code)
        self.code = code


class NaiveBook:
    """One market. `hedgers` are the accounts with two legs.

    `orders` are the resting ones, sorted: bids before asks, the better price first, the older first.
    `sizes` maps (account, leg) to signed lots; `out` collects the happenings of the command at hand.
    """

    def __init__(self, spec: MarketSpec, hedgers: set[int]) -> None:
        self.spec = spec
        self.hedgers = hedgers
        self.orders: list[Row] = []
        self.conditionals: list[Row] = []
        self.due: list[Row] = []
        self.countdowns: dict[int, int] = {}
        self.sizes: dict[tuple[int, Leg], int] = {}
        self.mark_ticks = 0
        self.last_ticks = 0
        self.clock_ns = 0
        self.stamps = 0
        self.made = 0
        self.out: list[Happening] = []

    def do(self, command: Command, new_id: int, now_ns: int) -> list[Happening]:
        """Run one command; an order placed by it gets the number `new_id`."""
        self.out = []
        self.clock_ns = now_ns
        self._run_timers()
        try:
            self._dispatch(command, new_id)
        except NaiveRefusal as refusal:
            self.out.append(("rejected", refusal.code))
            return self.out
        self._run_due()
        return self.out

    def do_mark(self, mark_ticks: int, now_ns: int) -> list[Happening]:
        """Take a new mark price as given."""
        self.out = []
        self.clock_ns = now_ns
        self._run_timers()
        self.out.append(("mark", mark_ticks))
        self.mark_ticks = mark_ticks
        self._observe(WorkingPrice.MARK, mark_ticks)
        self._run_due()
        return self.out

    def depth(self, side: Side) -> list[tuple[int, list[tuple[int, int]]]]:
        """Return (price, [(order id, open lots), oldest first]) of each level, the best first."""
        levels: list[tuple[int, list[tuple[int, int]]]] = []
        for order in self.orders:
            if order["side"] is side:
                if not levels or levels[-1][0] != order["price"]:
                    levels.append((order["price"], []))
                levels[-1][1].append((order["id"], order["open"]))
        return levels

    def _dispatch(self, command: Command, new_id: int) -> None:
        if isinstance(command, PlaceOrder):
            self._place(command, new_id)
        elif isinstance(command, AmendOrder):
            self._amend(command)
        elif isinstance(command, CancelOrder):
            self._end("cancelled", self._find(command), CloseReason.USER)
        elif isinstance(command, CancelAllOrders):
            self._cancel_all(command.account_id, CloseReason.USER)
        elif isinstance(command, PlaceConditional):
            self._place_conditional(command, new_id)
        elif isinstance(command, CancelConditional):
            self._cancel_conditional(self._find_conditional(command))
        elif isinstance(command, CancelAllConditionals):
            for row in [row for row in self.conditionals if row["account"] == command.account_id]:
                self._cancel_conditional(row)
        elif isinstance(command, SetCountdown):
            self.countdowns.pop(command.account_id, None)
            deadline_ns = 0
            if command.countdown_ms:
                deadline_ns = self.clock_ns + command.countdown_ms * 1_000_000
                self.countdowns[command.account_id] = deadline_ns
            self.out.append(("countdown", command.account_id, deadline_ns))
        else:
            assert isinstance(command, Tick), command

    # Orders

    def _place(self, command: PlaceOrder, order_id: int, *, whole: bool = False) -> None:
        self._check_leg(command.account_id, command.leg)
        is_market = command.order_type is OrderType.MARKET
        price_ticks = self._limit(command, command.side)
        reduces = command.reduce_only or closes(command.leg, command.side)
        position = (command.account_id, command.leg)
        self._check_form(command)
        if not whole:
            self._check_lots(command.quantity_lots, is_market)
        elif not command.quantity_lots:
            raise NaiveRefusal(RejectCode.REDUCE_ONLY)
        if not is_market:
            self._check_price(price_ticks)
        self._check_filters(command.side, command.quantity_lots, price_ticks, reduces)
        lots = command.quantity_lots
        if reduces:
            lots = min(lots, self.reducible(position, command.side))
            if not lots:
                raise NaiveRefusal(RejectCode.REDUCE_ONLY)
        own = [order for order in self.orders if order["position"][0] == command.account_id]
        if command.client_order_id and command.client_order_id in [order["client"] for order in own]:
            raise NaiveRefusal(RejectCode.DUPLICATE_CLIENT_ORDER_ID)
        if len(own) >= self.spec.max_open_orders:
            raise NaiveRefusal(RejectCode.TOO_MANY_ORDERS)
        width = self.mark_ticks * self.spec.take_bound // ONE
        limit_ticks = max(1, self.mark_ticks + command.side * width) if is_market else price_ticks
        order: Row = {
            "id": order_id,
            "position": position,
            "side": command.side,
            "price": limit_ticks,
            "lots": lots,
            "open": lots,
            "reduces": reduces,
            "client": command.client_order_id,
            "market": is_market,
            "tif": command.time_in_force,
            "rests": not is_market and command.time_in_force in RESTING,
            "self_trade": command.self_trade,
            "expires": command.expires_ns,
            "stamp": 0,
        }
        if command.time_in_force is TimeInForce.GTX and self._best_against(order) is not None:
            raise NaiveRefusal(RejectCode.WOULD_TAKE)
        if command.time_in_force is TimeInForce.FOK and not self._would_fill(order):
            raise NaiveRefusal(RejectCode.WOULD_NOT_FILL)
        self.out.append(("accepted", order_id, limit_ticks, lots))
        order["born"] = self._stamp()
        if order["rests"]:
            self._rest(order)
        self._match(order)

    def _amend(self, command: AmendOrder) -> None:
        order = self._find(command)
        price_ticks = self._limit(command, order["side"])
        if command.side is not order["side"]:
            raise NaiveRefusal(RejectCode.BAD_AMENDMENT)
        asked = command.quantity_lots
        filled = order["lots"] - order["open"]
        lots = asked
        if order["reduces"]:
            lots = min(lots, filled + self.reducible(order["position"], order["side"]))
        if (price_ticks, lots) == (order["price"], order["lots"]):
            raise NaiveRefusal(RejectCode.NOTHING_TO_AMEND)
        self._check_lots(asked, False)
        self._check_price(price_ticks)
        open_lots = lots - filled
        self._check_filters(order["side"], asked, price_ticks, order["reduces"] or open_lots <= 0)
        if open_lots <= 0:
            self._end("cancelled", order, CloseReason.AMENDED)
            return
        wanted = order | {"price": price_ticks}
        if order["tif"] is TimeInForce.GTX and self._best_against(wanted) is not None:
            self._end("cancelled", order, CloseReason.AMENDED)
            return
        keeps = price_ticks == order["price"] and open_lots < order["open"] and not command.yields_priority
        order["lots"] = lots
        order["open"] = open_lots
        self.out.append(("amended", order["id"], price_ticks, lots, open_lots, keeps, CloseReason.USER))
        if not keeps:
            self.orders.remove(order)
            order["price"] = price_ticks
            self._rest(order)
            self._match(order)

    def _match(self, taker: Row) -> None:
        traded: list[tuple[int, Leg]] = []
        self._meet_all(taker, traded)
        for position in traded:
            self._trim(position)

    def _meet_all(self, taker: Row, traded: list[tuple[int, Leg]]) -> None:
        while taker["open"]:
            maker = self._best_against(taker)
            if maker is None:
                break
            if maker["position"][0] == taker["position"][0] and taker["self_trade"] is not SelfTrade.NONE:
                if taker["self_trade"] is not SelfTrade.EXPIRE_TAKER:
                    self._end("expired", maker, CloseReason.SELF_TRADE)
                if taker["self_trade"] is not SelfTrade.EXPIRE_MAKER:
                    self._end("expired", taker, CloseReason.SELF_TRADE)
                    return
                continue
            lots = min(taker["open"], maker["open"])
            if taker["reduces"]:
                lots = min(lots, self.reducible(taker["position"], taker["side"]))
                if lots == 0:
                    self._end("expired", taker, CloseReason.REDUCE_ONLY)
                    return
            if maker["reduces"]:
                lots = min(lots, self.reducible(maker["position"], maker["side"]))
                if lots == 0:
                    self._end("expired", maker, CloseReason.REDUCE_ONLY)
                    continue
            self._trade(maker, taker, lots)
            for order in (maker, taker):
                if order["position"] not in traded:
                    traded.append(order["position"])
        if taker["open"] and not taker["rests"]:
            reason = CloseReason.MARKET_REST if taker["market"] else CloseReason.IOC_REST
            self._end("expired", taker, reason)

    def _trade(self, maker: Row, taker: Row, lots: int) -> None:
        self.out.append(("trade", maker["id"], taker["id"], maker["price"], lots))
        for order in (maker, taker):
            order["open"] -= lots
            position = order["position"]
            self.sizes[position] = self.sizes.get(position, 0) + order["side"] * lots
            if order["open"] == 0 and order in self.orders:
                self.orders.remove(order)
        self.last_ticks = maker["price"]
        self._observe(WorkingPrice.LAST, maker["price"])

    def _trim(self, position: tuple[int, Leg]) -> None:
        for order in [row for row in self.orders if row["reduces"] and row["position"] == position]:
            most = self.reducible(position, order["side"])
            if most == 0:
                self._end("expired", order, CloseReason.REDUCE_ONLY)
            elif order["open"] > most:
                order["lots"] -= order["open"] - most
                order["open"] = most
                row = (order["id"], order["price"], order["lots"], most, True, CloseReason.REDUCE_ONLY)
                self.out.append(("amended", *row))

    def _would_fill(self, order: Row) -> bool:
        """Try it on a copy of everything."""
        copy = NaiveBook(self.spec, self.hedgers)
        copy.orders = [dict(row) for row in self.orders]
        copy.sizes = dict(self.sizes)
        taker = dict(order)
        copy._match(taker)
        return bool(taker["open"] == 0)

    def _best_against(self, taker: Row) -> Row | None:
        for order in self.orders:
            if order["side"] is not taker["side"]:
                reaches = (taker["price"] - order["price"]) * taker["side"] >= 0
                return order if reaches else None
        return None

    def _rest(self, order: Row) -> None:
        order["stamp"] = self._stamp()
        insort(self.orders, order, key=lambda row: (-row["side"], -row["side"] * row["price"], row["stamp"]))

    def _end(self, how: str, order: Row, reason: CloseReason) -> None:
        self.out.append((how, order["id"], order["open"], reason))
        self.orders = [row for row in self.orders if row["id"] != order["id"]]

    def _cancel_all(self, account_id: int, reason: CloseReason) -> None:
        own = [order for order in self.orders if order["position"][0] == account_id]
        for order in sorted(own, key=lambda row: row["born"]):
            self._end("cancelled", order, reason)

    def _find(self, command: AmendOrder | CancelOrder) -> Row:
        for order in self.orders:
            if order["position"][0] == command.account_id:
                by_name = not command.order_id and command.client_order_id
                if order["id"] == command.order_id or (by_name and order["client"] == by_name):
                    return order
        raise NaiveRefusal(RejectCode.UNKNOWN_ORDER)

    def _limit(self, command: PlaceOrder | AmendOrder, side: Side) -> int:
        """Return a command's price, which a level of the book may give: OPPONENT_5 the fifth over there."""
        if command.price_match is PriceMatch.NONE:
            return command.price_ticks
        is_market = isinstance(command, PlaceOrder) and command.order_type is OrderType.MARKET
        if command.price_ticks or is_market:
            raise NaiveRefusal(RejectCode.BAD_ORDER)
        whose, _, place = command.price_match.name.partition("_")
        levels = self.depth(side if whose == "QUEUE" else side.opposite)
        if len(levels) < int(place or 1):
            raise NaiveRefusal(RejectCode.NO_DEPTH)
        return levels[int(place or 1) - 1][0]

    # Checks

    def reducible(self, position: tuple[int, Leg], side: Side) -> int:
        """Return how many lots a side can trade before it opens anything."""
        return max(0, -side * self.sizes.get(position, 0))

    def _check_leg(self, account_id: int, leg: Leg) -> None:
        if (account_id in self.hedgers) == (leg is Leg.BOTH):
            raise NaiveRefusal(RejectCode.BAD_LEG)

    def _check_lots(self, lots: int, is_market: bool) -> None:
        most = self.spec.max_market_lots if is_market else self.spec.max_lots
        if lots < self.spec.min_lots or lots > most:
            raise NaiveRefusal(RejectCode.BAD_QUANTITY)

    def _check_price(self, price_ticks: int) -> None:
        if price_ticks < self.spec.min_price_ticks or price_ticks > self.spec.max_price_ticks:
            raise NaiveRefusal(RejectCode.BAD_PRICE)

    def _check_form(self, command: PlaceOrder | PlaceConditional) -> None:
        if command.order_type is OrderType.MARKET and (
            command.price_ticks or command.time_in_force in (TimeInForce.GTX, TimeInForce.GTD)
        ):
            raise NaiveRefusal(RejectCode.BAD_ORDER)
        if (command.time_in_force is TimeInForce.GTD) != (command.expires_ns > self.clock_ns):
            raise NaiveRefusal(RejectCode.BAD_ORDER)

    def _check_filters(self, side: Side, lots: int, price_ticks: int, reduces: bool) -> None:
        unit = self.spec.tick_size * self.spec.lot_size // ONE
        if not reduces and lots * (price_ticks or self.mark_ticks) * unit < self.spec.min_notional:
            raise NaiveRefusal(RejectCode.MIN_NOTIONAL)
        if not price_ticks:
            return
        if side is Side.BUY and (price_ticks - self.mark_ticks) * ONE > self.mark_ticks * self.spec.band_up:
            raise NaiveRefusal(RejectCode.PRICE_ABOVE_BAND)
        if (
            side is Side.SELL
            and (self.mark_ticks - price_ticks) * ONE > self.mark_ticks * self.spec.band_down
        ):
            raise NaiveRefusal(RejectCode.PRICE_BELOW_BAND)

    # What happens later

    def _place_conditional(self, command: PlaceConditional, new_id: int) -> None:
        self._check_leg(command.account_id, command.leg)
        if command.price_match is not PriceMatch.NONE:
            if command.price_ticks or command.order_type is OrderType.MARKET:
                raise NaiveRefusal(RejectCode.BAD_ORDER)
        elif command.order_type is OrderType.LIMIT:
            self._check_price(command.price_ticks)
        self._check_form(command)
        if not command.close_position:
            self._check_lots(command.quantity_lots, command.order_type is OrderType.MARKET)
        elif command.quantity_lots or command.reduce_only or command.order_type is not OrderType.MARKET:
            raise NaiveRefusal(RejectCode.BAD_ORDER)
        elif command.leg is not Leg.BOTH and not closes(command.leg, command.side):
            raise NaiveRefusal(RejectCode.BAD_LEG)
        price_ticks = self._working(command.working_price)
        rises = (command.kind is TriggerKind.STOP) == (command.side is Side.BUY)
        row: Row = {"id": new_id, "account": command.account_id, "terms": command, "rises": rises}
        if command.kind is TriggerKind.TRAILING:
            beyond = command.activation_ticks - price_ticks
            waits = command.activation_ticks and (beyond > 0 if rises else beyond < 0)
            row["best"] = 0 if waits else price_ticks
        else:
            self._check_price(command.trigger_ticks)
            beyond = command.trigger_ticks - price_ticks
            if beyond <= 0 if rises else beyond >= 0:
                raise NaiveRefusal(RejectCode.WOULD_TRIGGER)
        own = [each for each in self.conditionals if each["account"] == command.account_id]
        name = command.client_order_id
        if name and name in [each["terms"].client_order_id for each in own]:
            raise NaiveRefusal(RejectCode.DUPLICATE_CLIENT_ORDER_ID)
        if command.close_position and any(
            each["terms"].close_position
            and each["terms"].leg is command.leg
            and each["terms"].side is command.side
            and each["terms"].kind is command.kind
            for each in own
        ):
            raise NaiveRefusal(RejectCode.CLOSE_POSITION_EXISTS)
        if len(own) >= self.spec.max_conditional_orders:
            raise NaiveRefusal(RejectCode.TOO_MANY_CONDITIONALS)
        self.conditionals.append(row)
        self.out.append(("conditional", new_id))

    def _working(self, working_price: WorkingPrice) -> int:
        return self.last_ticks or self.mark_ticks if working_price is WorkingPrice.LAST else self.mark_ticks

    def _observe(self, watched: WorkingPrice, price_ticks: int) -> None:
        """Queue what a price fires: rising triggers from the lowest, then falling ones from the highest."""
        rising, falling = [], []
        for row in self.conditionals:
            terms: PlaceConditional = row["terms"]
            if terms.working_price is not watched or row in self.due:
                continue
            if terms.kind is TriggerKind.TRAILING:
                trigger_ticks = trail(row, price_ticks)
                fires_rising = not row["rises"]
            else:
                reached = (price_ticks - terms.trigger_ticks) * (1 if row["rises"] else -1) >= 0
                trigger_ticks = terms.trigger_ticks if reached else 0
                fires_rising = row["rises"]
            if trigger_ticks and fires_rising:
                rising.append((trigger_ticks, row["id"], row))
            elif trigger_ticks:
                falling.append((-trigger_ticks, row["id"], row))
        for fired in (rising, falling):
            self.due += [row for _, _, row in sorted(fired, key=lambda found: found[:2])]

    def _run_due(self) -> None:
        while self.due:
            row = self.due.pop(0)
            self.conditionals.remove(row)
            order_id = FIRST_MADE_ID + self.made
            self.made += 1
            self.out.append(("triggered", row["id"], order_id))
            terms: PlaceConditional = row["terms"]
            lots = terms.quantity_lots
            if terms.close_position:
                lots = self.reducible((terms.account_id, terms.leg), terms.side)
            command = PlaceOrder(
                account_id=terms.account_id,
                market=terms.market,
                side=terms.side,
                order_type=terms.order_type,
                quantity_lots=lots,
                price_ticks=terms.price_ticks,
                time_in_force=terms.time_in_force,
                reduce_only=terms.reduce_only or terms.close_position,
                client_order_id=terms.client_order_id,
                leg=terms.leg,
                self_trade=terms.self_trade,
                expires_ns=terms.expires_ns,
                price_match=terms.price_match,
            )
            try:
                if terms.price_protect:
                    self._check_protection()
                self._place(command, order_id, whole=terms.close_position)
            except NaiveRefusal as refusal:
                self.out.append(("conditional rejected", row["id"], refusal.code))

    def _check_protection(self) -> None:
        last_ticks = self.last_ticks or self.mark_ticks
        if abs(self.mark_ticks - last_ticks) * ONE > self.spec.trigger_protect * last_ticks:
            raise NaiveRefusal(RejectCode.PRICE_PROTECTED)

    def _cancel_conditional(self, row: Row) -> None:
        self.conditionals.remove(row)
        self.out.append(("conditional cancelled", row["id"]))

    def _find_conditional(self, command: CancelConditional) -> Row:
        for row in self.conditionals:
            if row["account"] == command.account_id:
                by_name = not command.conditional_id and command.client_order_id
                name = row["terms"].client_order_id
                if row["id"] == command.conditional_id or (by_name and name == by_name):
                    return row
        raise NaiveRefusal(RejectCode.UNKNOWN_ORDER)

    def _run_timers(self) -> None:
        timers = [(ns, account_id, 0) for account_id, ns in self.countdowns.items()]
        timers += [(row["expires"], row["position"][0], row["id"]) for row in self.orders if row["expires"]]
        for ns, account_id, order_id in sorted(timers):
            if ns > self.clock_ns:
                return
            if not order_id:
                del self.countdowns[account_id]
                self.out.append(("countdown expired", account_id))
                self._cancel_all(account_id, CloseReason.COUNTDOWN)
            for order in [row for row in self.orders if row["id"] == order_id]:
                self._end("expired", order, CloseReason.GOOD_TILL_DATE)

    def _stamp(self) -> int:
        self.stamps += 1
        return self.stamps


def trail(row: Row, price_ticks: int) -> int:
    """Let a trailing order see a price; return its trigger when that fires it, else 0."""
    terms: PlaceConditional = row["terms"]
    sign = -1 if terms.side is Side.BUY else 1
    if not row["best"]:
        if (price_ticks - terms.activation_ticks) * sign >= 0:
            row["best"] = price_ticks
        return 0
    away = max(1, row["best"] * terms.callback_rate // ONE)
    trigger_ticks: int = row["best"] - sign * away
    if (trigger_ticks - price_ticks) * sign >= 0:
        return trigger_ticks
    row["best"] = sign * max(sign * row["best"], sign * price_ticks)
    return 0


def closes(leg: Leg, side: Side) -> bool:
    """Whether a side only ever reduces a leg of a hedge."""
    return (leg, side) in ((Leg.LONG, Side.SELL), (Leg.SHORT, Side.BUY))


def happening(event: Event) -> Happening | None:
    """Say an event of the aggregate as this module says it; None for what it does not know."""
    match event:
        case OrderAccepted():
            return ("accepted", event.order_id, event.price_ticks, event.quantity_lots)
        case OrderAmended():
            lots = (event.quantity_lots, event.open_lots)
            return ("amended", event.order_id, event.price_ticks, *lots, event.keeps_place, event.reason)
        case OrderCancelled():
            return ("cancelled", event.order_id, event.open_lots, event.reason)
        case OrderExpired():
            return ("expired", event.order_id, event.open_lots, event.reason)
        case TradeExecuted():
            ids = (event.maker_order_id, event.taker_order_id)
            return ("trade", *ids, event.price_ticks, event.quantity_lots)
        case Rejected():
            return ("rejected", event.code)
        case ConditionalAccepted():
            return ("conditional", event.conditional_id)
        case ConditionalCancelled():
            return ("conditional cancelled", event.conditional_id)
        case ConditionalTriggered():
            return ("triggered", event.conditional_id, event.order_id)
        case ConditionalRejected():
            return ("conditional rejected", event.conditional_id, event.code)
        case CountdownSet():
            return ("countdown", event.account_id, event.deadline_ns)
        case CountdownExpired():
            return ("countdown expired", event.account_id)
        case MarkPriceChanged():
            return ("mark", event.mark_ticks)
        case FrameHeader() | TickPassed():
            return None
    raise AssertionError(f"an event that was not expected here: {event}")


def in_one_order(happenings: list[Happening]) -> list[Happening]:
    """Sort neighbouring changes of reduce-only orders by order: which shrinks first makes no difference."""
    result: list[Happening] = []
    run: list[Happening] = []
    for each in [*happenings, ("end",)]:
        if each[-1] is CloseReason.REDUCE_ONLY:
            run.append(each)
            continue
        result += sorted(run, key=lambda change: (change[1], change[0]))
        run = []
        result.append(each)
    return result[:-1]
