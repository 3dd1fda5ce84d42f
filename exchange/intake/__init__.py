"""The intake: HTTP in Binance's USD-M manner on one side, commands and events of the log on the other."""
