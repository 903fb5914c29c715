"""Forecasts of counts with prediction intervals: quantiles by boosted trees, conformalised, judged by backtest."""
