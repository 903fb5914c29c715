"""FHIR's dates and times as moments: the start of what was said, in UTC (``2020-03`` is 2020-03-01T00:00:00Z)."""

from __future__ import annotations

__all__ = ["TIME_MACROS"]

TIME_MACROS = """
CREATE OR REPLACE TEMP MACRO moment(said) AS try_cast(
    CASE length(said) WHEN 4 THEN said || '-01-01' WHEN 7 THEN said || '-01' ELSE said END AS TIMESTAMPTZ);
CREATE OR REPLACE TEMP MACRO utc(said) AS make_timestamp(epoch_us(moment(said)));
"""
"""``moment`` has its zone; ``utc`` is the same without one, as the views show it."""
