"""Jobs of ClarifyCheck steps: differences between groups before and after training, and explanations.

What is asked for is Clarify's analysis configuration, as the input ``analysis_config`` (a file that a step left, or
one of this machine) or as JSON in the environment under that name.
https://docs.aws.amazon.com/sagemaker/latest/dg/clarify-processing-job-configure-analysis.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from carelake.core.errors import Invalid, Unsupported
from carelake.models.matrix import GROUPS, Floats
from carelake.monitor import attribution, bias, performance
from carelake.monitor.baseline import Baseline
from carelake.monitor.drift import Bounds
from carelake.monitor.performance import Labelled
from carelake.pipelines.execution.work import Made, Work
from carelake.pipelines.jobs.baselines import concluded, of_figures, too_few
from carelake.pipelines.jobs.checks import ENOUGH, labelled
from carelake.pipelines.jobs.rows import LABEL, PROBABILITY, Model, Table, model_of, outcomes, owners, table_of

__all__ = ["data_bias", "explainability", "model_bias"]

_INPUT, _CONFIG = "dataset", "analysis_config"
_MOST = 1 << 20
_KNOWN = frozenset(
    {"dataset_type", "dataset_uri", "facet", "group_variable", "headers", "label", "label_values_or_threshold"}
) | {"methods", "predictor", "probability", "probability_threshold", "version"}


@dataclass(frozen=True)
class _Asked:
    """What a check was asked, and the rows that it looks at."""

    config: Mapping[str, Any]
    read: Table
    model: Model | None

    @property
    def label(self) -> str:
        return str(self.config.get("label", LABEL))

    def shorts(self, section: str, known: Mapping[str, str]) -> frozenset[str]:
        """Short names of the metrics that ``methods`` asks for, all by default."""
        asked = ((self.config.get("methods") or {}).get(section) or {}).get("methods", "all")
        wanted = frozenset(known) if asked == "all" else frozenset(map(str, asked))
        if unknown := sorted(wanted - set(known)):
            raise Invalid("pipelines.analysis_config", f"{unknown[0][:32]} is no metric of {section}.")
        return wanted


def data_bias(work: Work) -> Made:
    """Differences between groups in the outcomes that a model would learn from.

    Raises:
        Invalid: ``pipelines.analysis_config``, ``pipelines.no_column``, ``pipelines.too_few``,
            ``pipelines.no_baseline``.
    """
    asked = _asked(work, "")
    y, known = outcomes(asked.read.column(asked.label), asked.config.get("label_values_or_threshold") or ())
    nothing = np.zeros(int(known.sum()))
    seen = Labelled(y[known], nothing, owners(asked.read.table)[known], 1.0)
    wanted = asked.shorts("pre_training_bias", bias.PRE)
    return _differences(work, "DATA_BIAS", asked, seen, known, wanted, None)


def model_bias(work: Work) -> Made:
    """Differences between groups in what a model says of them.

    Risks are those of the dataset's column of probabilities, or of ``predictor.model_name``, asked about its rows.

    Raises:
        Invalid: as `data_bias`. As `rows.model_of`.
    """
    asked = _asked(work, "test")
    x, p, threshold = _risks(asked)
    seen, known = labelled(asked.read, p, asked.label, threshold, asked.config.get("label_values_or_threshold") or ())
    wanted = asked.shorts("post_training_bias", bias.POST)
    return _differences(work, "MODEL_BIAS", asked, seen, known, wanted, None if x is None else x[known])


def explainability(work: Work) -> Made:
    """What moves the risks of ``predictor.model_name``: mean sizes of SHAP values, and their order beside before.

    Raises:
        Invalid: as `data_bias`. As `rows.model_of`.
    """
    asked = _asked(work, "test")
    if asked.model is None:
        raise Invalid("pipelines.analysis_config", "Explanations are of a model; name it as predictor.model_name.")
    x, _ = asked.model.risks(asked.read.table)
    if len(x) < Bounds().enough:
        raise too_few(f"{Bounds().enough} rows")
    now = attribution.of_rows(asked.model.scorer, x)
    shap = {"label0": {"global_shap_values": now}}
    files = {"analysis.json": {"version": "1.0", "explanations": {"kernel_shap": shap}}}

    def held(before: Baseline) -> tuple[Mapping[str, Any], Sequence[str]]:
        if not before.attributions:
            raise _lacks("explanations")
        found = attribution.judge(attribution.ndcg(before.attributions, now))
        return {"version": "1.0", "violations": found}, [one["metric_name"] for one in found]

    base = of_figures(len(x), "data set", attributions=now)
    return concluded(work, "MODEL_EXPLAINABILITY", base, files, held, [asked.read.noun.ref, asked.model.ref])


def _differences(
    work: Work, kind: str, asked: _Asked, seen: Labelled, known: Any, wanted: frozenset[str], x: Floats | None
) -> Made:
    if performance.too_few(seen):
        raise too_few(ENOUGH)
    found: dict[str, Any] = {}
    given = asked.config.get("group_variable")
    beside = {str(given): _texts(asked.read, str(given))[known]} if given else {}
    for name, labels in _facets(asked, known).items():
        groups = {name: labels, **{k: v for k, v in beside.items() if k != name}}
        one = bias.baseline(seen, groups)
        one = bias.with_flips({k: v for k, v in one.items() if k == name}, seen, groups, x) if x is not None else one
        found[name] = {
            value: {short: figure for short, figure in shorts.items() if short in wanted}
            for value, shorts in one.get(name, {}).items()
            if _meant(asked, name, value)
        }
    if not any(found.values()) or not all(found[name] for name in found if _named(asked, name)):
        raise too_few("50 of a group and 50 of others")
    analysis = bias.analysis(found, asked.label)
    analysis.pop("post_training_bias_metrics" if kind == "DATA_BIAS" else "pre_training_bias_metrics")

    def held(before: Baseline) -> tuple[Mapping[str, Any], Sequence[str]]:
        if not before.bias:
            raise _lacks("bias")
        if not all(_shared(one, before.bias.get(name, {})) for name, one in found.items() if one):
            raise _lacks("these groups")
        wrong = bias.judge(found, before.bias)
        return {"version": "1.0", "violations": wrong}, [f"{one['metric_name']} of {one['facet']}" for one in wrong]

    base = of_figures(len(seen), "data set", bias=found)
    sources = [asked.read.noun.ref, *([asked.model.ref] if asked.model else [])]
    return concluded(work, kind, base, {"analysis.json": analysis}, held, sources)


def _shared(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether anything of a facet can be compared; where nothing can, nothing would violate."""
    return any(short in before.get(value, {}) for value, shorts in now.items() for short in shorts)


def _risks(asked: _Asked) -> tuple[Floats | None, Floats, float]:
    """Features where they are known, risks, and the threshold of an alert."""
    told = asked.config.get("probability_threshold")
    if asked.model is not None:
        x, p = asked.model.risks(asked.read.table)
        return x, p, _share(told, asked.model.scorer.threshold)
    column = asked.read.column(str(asked.config.get("probability", PROBABILITY)))
    p = np.asarray([np.nan if one is None else float(one) for one in column.to_pylist()], dtype=np.float64)
    return None, p, _share(told, float(asked.read.noun.body.get("threshold", 0.5)))


def _share(told: Any, default: float) -> float:
    found = default if told is None else told
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1:
        raise Invalid("pipelines.analysis_config", "probability_threshold is a number between 0 and 1.")
    return float(found)


def _facets(asked: _Asked, known: Any) -> dict[str, np.ndarray]:
    there = asked.read.table.column_names
    names = [str(one.get("name_or_index")) for one in _listed(asked.config.get("facet"))]
    names = names or [name for name in GROUPS if name in there]
    if not names:
        raise Invalid("pipelines.analysis_config", "The dataset has no group to compare; name columns as facet.")
    return {name: _texts(asked.read, name)[known] for name in names}


def _meant(asked: _Asked, name: str, value: str) -> bool:
    """Whether a facet's value is one of ``value_or_threshold``, where any are named."""
    for one in _listed(asked.config.get("facet")):
        if str(one.get("name_or_index")) == name and (values := one.get("value_or_threshold")):
            return value in {str(each) for each in values}
    return True


def _named(asked: _Asked, name: str) -> bool:
    return any(str(one.get("name_or_index")) == name for one in _listed(asked.config.get("facet")))


def _listed(facet: Any) -> list[Mapping[str, Any]]:
    found = facet if isinstance(facet, list) else [facet] if facet else []
    if not all(isinstance(one, dict) for one in found):
        raise Invalid("pipelines.analysis_config", "A facet is an object with name_or_index.")
    return found


def _texts(read: Table, name: str) -> np.ndarray:
    values = read.column(name).to_pylist()
    return np.asarray(["unknown" if one is None or one == "" else str(one) for one in values])


def _asked(work: Work, part: str) -> _Asked:
    config = _config(work)
    named = work.settings.get("model_name") or (config.get("predictor") or {}).get("model_name")
    with work.acting("monitor:check", work.pipeline) as permit:
        read = table_of(work, permit, _INPUT, work.settings.get("part", part))
        model = model_of(work, permit, str(named)) if named else None
    return _Asked(config, read, model)


def _config(work: Work) -> Mapping[str, Any]:
    """The analysis configuration, checked: what is asked for and not done here is refused by name."""
    text: bytes = str(work.settings.get(_CONFIG) or "{}").encode()
    if (found := work.inputs.get(_CONFIG)) is not None:
        if found.ref:
            with work.acting("pipeline:step", work.pipeline) as permit:
                text = work.read(permit, found.ref, found.file or f"{_CONFIG}.json")
        else:
            text = work.data(_CONFIG)
    try:
        said = msgspec.json.decode(text[: _MOST + 1])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Invalid("pipelines.analysis_config", "The analysis configuration is a JSON object.")
    if unknown := sorted(set(said) - _KNOWN):
        raise Unsupported("pipelines.unsupported", f"{unknown[0][:64]} of an analysis_config is not carried out.")
    return said


def _lacks(what: str) -> Invalid:
    return Invalid(
        "pipelines.no_baseline", f"The baseline has no figures of {what}; supply one that such a check left."
    )
