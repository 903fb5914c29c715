"""carelake: raw clinical data to a governed, monitored prediction."""

from carelake.core.later import later

__all__ = ["__version__", "connect"]

__version__ = "0.1.0"
connect = later("carelake.apps.dbapi", "connect")
