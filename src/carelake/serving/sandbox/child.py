"""The sandboxed process: warms up, gives everything up, opens one model and scores rows with it, until nobody asks.

Started by `launcher` as ``python -I -B -m carelake.serving.sandbox.child``, with a pipe as `walls.CHANNEL` and
nothing else. Libraries that LightGBM would load beside itself, and that scoring does not need, are kept out: what is
not there can do nothing.
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from typing import Any

_WITHOUT = ("sklearn", "pandas", "dask", "matplotlib", "graphviz", "cffi", "polars", "psutil", "joblib")


class _Nowhere:
    """Where printed text goes."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        """Nothing to do."""


def _keep_out() -> None:
    for name in _WITHOUT:
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails, as if it were not installed
    # Named in annotations of `models.matrix`; its tables stay outside.
    sys.modules["pyarrow"] = types.ModuleType("pyarrow")
    sys.stdout = sys.stderr = _Nowhere()
    warnings.simplefilter("ignore")  # to show one would take reading a source file


_ALONE = __name__ == "__main__"  # and not looked at by another process, which may want them
if _ALONE:
    _keep_out()

import numpy as np  # noqa: E402

from carelake.core.errors import CarelakeError, Invalid  # noqa: E402
from carelake.models import boosting  # noqa: E402
from carelake.models.logistic import fit_linear  # noqa: E402
from carelake.models.scorer import Description, ScoreMap, Scorer, read  # noqa: E402
from carelake.serving.sandbox import walls, wire  # noqa: E402
from carelake.vault.attested.recipient import Recipient, rehearsal  # noqa: E402

if _ALONE:
    sys.modules["pyarrow"] = None  # type: ignore[assignment]  # from here on there is none

__all__ = ["Child", "main"]


class Child:
    """One model, at most, and who may open it."""

    def __init__(self) -> None:
        self._recipient = Recipient()
        self._scorer: Any = None

    def begun(self) -> wire.Begun:
        """What is loaded now, for the launcher to measure."""
        found = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
        return wire.Begun(self._recipient.public_key, {name: path for name, path in found.items() if path})

    def answer(self, message: wire.Message) -> wire.Message:
        """What is said to a message."""
        try:
            if isinstance(message, wire.Ask):
                return self._scored(message)
            if isinstance(message, wire.Load) and self._scorer is None:
                return self._loaded(message)
        except CarelakeError as error:
            return wire.Fault(error.code, error.message)
        except Exception as error:  # whatever it is, it goes no further than its name
            return wire.Fault("fault", type(error).__name__)
        return wire.Fault("fault", "unexpected")

    def _loaded(self, asked: wire.Load) -> wire.Message:
        files = self._recipient.open(asked.keys, asked.document, asked.sealed)
        scorer = read(files)
        zeros = np.zeros((1, len(scorer.names)))
        scorer.risk(zeros)  # what is made when it is first asked is made now
        scorer.contributions(zeros)
        self._scorer = scorer
        return wire.Ready(list(scorer.names), dict(scorer.description.words), float(scorer.threshold))

    def _scored(self, asked: wire.Ask) -> wire.Message:
        if self._scorer is None:
            raise Invalid("serving.sandbox_empty", "The sandbox has no model yet.")
        x = wire.array(asked.x, asked.rows, asked.order)
        risk = self._scorer.risk(x)
        parts, start = self._scorer.contributions(x)
        scores = {name: np.frombuffer(data, dtype="<f8") for name, data in asked.scores.items()}
        told = self._scorer.score_risks(scores) if scores else {}
        return wire.Said(_bytes(risk), _bytes(parts), float(start), {name: _bytes(one) for name, one in told.items()})


def _bytes(values: Any) -> bytes:
    return np.ascontiguousarray(values, dtype="<f8").tobytes()


def _warm() -> None:
    """Go the whole way once with a made-up model, so that nothing is loaded later: then it would be too late."""
    at = np.arange(200, dtype=np.float64)
    x, y = np.column_stack([np.sin(at), np.cos(at)]), np.sin(at) + np.cos(3 * at) > 0
    linear = fit_linear(x, y)
    text = boosting.text_of(boosting.fit(x, y, 2, {"min_data_in_leaf": 5}))
    score = {"lace": ScoreMap(-1.0, 0.1, 1.0)}
    told = Description(["a", "b"], {}, linear, (0.0, 0.5, 0.5), (0.0, 1.0), score, 0.5, "", 2, {})
    child = Child()
    keys, sealed = rehearsal(child.begun().public_key, "rehearsal", Scorer(text, told).files())
    child.answer(wire.Load(keys, "rehearsal", sealed))
    said = child.answer(wire.Ask(2, _bytes(x[:2]), "C", {"lace": _bytes([1.0, np.nan])}))
    wire.packed(said)
    np.asarray(x @ x.T).sum()
    if not isinstance(said, wire.Said):
        raise RuntimeError("the sandbox does not score what it made itself")
    walls.policy()  # loads libseccomp, which is measured with the rest
    walls.freeze()


def _send(message: wire.Message) -> None:
    left = memoryview(wire.packed(message))
    while left:
        left = left[os.write(walls.CHANNEL, left) :]


def _next() -> wire.Message | None:
    return wire.receive(lambda size: os.read(walls.CHANNEL, size))


def main() -> None:
    """Until the pipe ends."""
    os.dup2(int(sys.argv[1]), walls.CHANNEL)
    _warm()
    child = Child()
    _send(child.begun())
    told = _next()
    if not isinstance(told, wire.Lock):
        os._exit(2)
    os.closerange(walls.CHANNEL + 1, 1 << 16)
    try:
        walls.lock(debug=told.debug)
    except CarelakeError as error:
        _send(wire.Fault(error.code, error.message))
        os._exit(3)
    _send(wire.Locked())
    while (asked := _next()) is not None:
        _send(child.answer(asked))
    os._exit(0)


if _ALONE:
    main()
