"""carelake: raw clinical data to a governed, monitored prediction."""

__version__ = "0.1.0"
