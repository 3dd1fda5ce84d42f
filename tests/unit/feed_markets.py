"""Two markets for the feed's tests: BTCUSDT with a tick of 0.1, ETHUSDT with one of 0.01."""

from events.values import Bracket, MarketSpec


def _spec(symbol: str, tick_size: int, max_price_ticks: int = 10_000_000) -> MarketSpec:
    return MarketSpec(
        symbol=symbol,
        base=symbol.removesuffix("USDT"),
        quote="USDT",
        tick_size=tick_size,
        lot_size=100_000,
        min_price_ticks=1,
        max_price_ticks=max_price_ticks,
        min_lots=1,
        max_lots=1_000_000,
        min_notional=500_000_000,
        maker_fee=20_000,
        taker_fee=50_000,
        liquidation_fee=1_000_000,
        mark_band=300_000,
        take_bound=5_000_000,
        band_up=15_000_000,
        band_down=15_000_000,
        max_market_lots=1_000_000,
        max_open_orders=200,
        max_conditional_orders=10,
        max_position_lots=1_000_000,
        max_open_interest_lots=4_000_000,
        unwind_lots=1_000,
        brackets=(Bracket(cap=10**16, maintenance_rate=400_000, max_leverage=125),),
    )


SPECS = {"BTCUSDT": _spec("BTCUSDT", 10_000_000), "ETHUSDT": _spec("ETHUSDT", 1_000_000)}
