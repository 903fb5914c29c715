"""The steps of ``run utilisation``: daily counts of the record, a model that foretells them, and what it says.

What is kept are counts of groups. An erasure takes a patient out of the record and the lake, and so out of the counts
of the next run; the counts kept before name nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from carelake.access.identity import Caller
from carelake.core.permit import Permit
from carelake.features import parquet
from carelake.features.utilisation import FEATURES, HORIZON, WORDS, Daily, Series, daily, design
from carelake.lake import query, results
from carelake.models import artifact
from carelake.models.forecast.card import card, html
from carelake.models.forecast.evaluate import backtest, evaluate, insufficient
from carelake.models.forecast.fit import ForecastPlan, fit
from carelake.models.forecast.scorer import ForecastScorer
from carelake.monitor.baseline import profile, with_errors
from carelake.pipelines.platform import Platform

__all__ = ["NAME", "PLAN", "Utilisation", "empty"]

NAME = "utilisation"
PLAN = ForecastPlan(name=NAME)
_TRAINER = "pipeline"
_DRAWN = 8
_EMPTY = "The record is empty, so there is nothing to count; read data with `carelake ingest` first."
_NO_SERIES: Mapping[str, Any] = {"training_set": None, "first": None, "last": None, "series": [], "too_small": []}
_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("coverage", "mase", "mae", "pinball")),
    "n": 0,
    "baselines": {},
    "subgroups": [],
}


@dataclass(frozen=True)
class Utilisation:
    """Steps over one platform on behalf of a caller."""

    platform: Platform
    caller: Caller
    plan: ForecastPlan = PLAN

    def run(self, tell: Callable[[str], None] = lambda words: None) -> dict[str, Any]:
        """From the record to a registered version and its forecast; doing it again finds what is the same.

        Returns:
            ``training_set``, ``first``, ``last``, ``series``, ``too_small``, ``model_version``, ``state``,
            ``metrics``, ``forecast``, ``stopped`` (why there is no model, or None).
        """
        tell("Bringing the lake up to the record")
        with self.platform.acting(_TRAINER, self.caller, "lake:sync", "lake", job=True) as permit:
            snapshot = self.platform.sync(permit).snapshot_ref
        if not snapshot:
            return empty()
        tell("Counting by day and unit")
        dataset = self.daily(snapshot)
        tell("Fitting, judging by backtest and foretelling")
        return {**dataset, **self.train(dataset)}

    def daily(self, snapshot_ref: str) -> dict[str, Any]:
        """Daily counts of every unit."""
        vault, nouns = self.platform.vault, self.platform.nouns
        with self.platform.acting(_TRAINER, self.caller, "features:build", NAME) as permit:
            snapshot = query.snapshot_of(permit, vault, nouns, snapshot_ref)
            tables = query.views(permit, vault, snapshot)
            views = results.note(permit, vault, nouns, snapshot, tables)
            made = daily(tables, now=vault.clock.now(), limits=vault.settings.lake)
            told = {
                "first": made.first.isoformat() if made.first else None,
                "last": made.last.isoformat() if made.last else None,
                "series": [one.name for one in made.series],
                "too_small": list(made.too_small),
            }
            sources = [view.ref for view in views]
            body = {**told, "features": list(FEATURES)}
            noun = parquet.keep(permit, vault, nouns, "trainingset", _table(made, sources), sources, body)
        return {"training_set": noun.ref, **told}

    def train(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Fit, judge by backtest, register, and foretell the days after the data's end."""
        ref = told["training_set"]
        with self.platform.acting(_TRAINER, self.caller, "model:train", NAME) as permit:
            series = self._series(permit, ref)
            rows = design(series) if series else None
            reason = insufficient(len(np.unique(rows.origin)) if rows else 0, self.plan)
            if rows is None or reason is not None:
                said = reason or "No unit has an event a day or more, so there is nothing to foretell."
                return _stopped({}, said)
            held = backtest(rows, FEATURES, self.plan)
            metrics = evaluate(held, self.plan, [one.name for one in series])
            last = len(series[0].counts) - 1
            scorer = fit(rows, FEATURES, self.plan, last, training_set=ref, words=WORDS)
            foretold = _foretold(scorer, series)
            days = {name: told[name] for name in ("first", "last", "series", "too_small")}
            said_card = card(scorer, metrics, self.plan, author=permit.principal, days=days)
            page = html(said_card, [_drawn(one, foretold) for one in series[:_DRAWN]])
            seen = rows.x[rows.target > last - self.plan.calibration_days]
            spread = profile(seen, scorer.risk(seen), FEATURES, "last days")
            baseline = with_errors(spread, held["y"], held["middle"]).to_bytes()
            files = artifact.pack(scorer, metrics, said_card, page, baseline)  # type: ignore[arg-type]
            version = self.platform.registry.register(permit, self.plan.name, ref, files)
        made = {"model_version": version.ref, "state": version.state, "metrics": metrics}
        return {**made, "forecast": foretold, "stopped": None}

    def _series(self, permit: Permit, ref: str) -> list[Series]:
        with self.platform.vault.database.reading(permit) as connection:
            noun = self.platform.nouns.get(connection, ref, account=permit.account)
        table = parquet.read(permit, self.platform.vault, noun)
        found: dict[tuple[str, str], list[float]] = {}
        for row in table.to_pylist():
            found.setdefault((row["unit"], row["measure"]), []).append(row["count"])
        if not found:
            return []
        first = date.fromisoformat(str(noun.body["first"]))
        return [Series(unit, measure, first, np.asarray(counts)) for (unit, measure), counts in found.items()]


def empty() -> dict[str, Any]:
    """What `Utilisation.run` gives where there is no record."""
    return _stopped(dict(_NO_SERIES), _EMPTY)


def _stopped(told: Mapping[str, Any], reason: str) -> dict[str, Any]:
    made = {"model_version": None, "state": None, "metrics": {**_NOTHING, "reason": reason}}
    return {**told, **made, "forecast": [], "stopped": reason}


def _table(made: Daily, sources: list[str]) -> pa.Table:
    """unit, measure, day, count: all days of a series, one after another."""
    columns: dict[str, list[Any]] = {"unit": [], "measure": [], "day": [], "count": []}
    for one in made.series:
        days = len(one.counts)
        columns["unit"] += [one.unit] * days
        columns["measure"] += [one.measure] * days
        columns["day"] += [one.first + timedelta(days=at) for at in range(days)]
        columns["count"] += one.counts.tolist()
    schema = pa.schema(
        [("unit", pa.string()), ("measure", pa.string()), ("day", pa.date32()), ("count", pa.float64())]
    )
    return pa.table(columns, schema=schema).replace_schema_metadata({b"carelake": ",".join(sources).encode()})


def _foretold(scorer: ForecastScorer, series: list[Series]) -> list[dict[str, Any]]:
    """The 14 days after the last, of every series."""
    rows = design(series)
    coming = rows.where(rows.origin == len(series[0].counts) - 1)
    out = []
    low, middle, high = scorer.interval(coming.x)
    for at in np.lexsort((coming.target, coming.series)):
        one = series[int(coming.series[at])]
        said = {"unit": one.unit, "measure": one.measure}
        said["day"] = (one.first + timedelta(days=int(coming.target[at]))).isoformat()
        out.append({**said, "low": _n(low[at]), "middle": _n(middle[at]), "high": _n(high[at])})
    return out


def _n(value: float) -> float:
    return round(float(value), 2)


def _drawn(one: Series, foretold: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in foretold if (row["unit"], row["measure"]) == (one.unit, one.measure)]
    parts = {name: [row[name] for row in mine] for name in ("low", "middle", "high")}
    return {"name": one.name, "history": one.counts[-2 * HORIZON :].tolist(), **parts}
