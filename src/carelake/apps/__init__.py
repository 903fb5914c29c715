"""The doors: command line and HTTP, the wiring behind them, and the one translation of errors."""
