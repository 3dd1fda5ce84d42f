"""What Foldex has beside Binance's calls, under /foldex/v1."""
