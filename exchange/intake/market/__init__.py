"""What anybody may ask: contracts, books, prices, trades, candles; the read model behind them."""
