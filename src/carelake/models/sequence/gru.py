"""Gated recurrent units (Cho et al. 2014) with one output, forwards and backwards in numpy.

    z = sigmoid(x Wz + h Uz + bz)           how much of the state stays
    r = sigmoid(x Wr + h Ur + br)           how much of it the candidate sees
    n = tanh(x Wn + bn + r * (h Un + cn))   the candidate
    h = (1 - z) * n + z * h

The state starts at 0; the score is a line of the last state. Weights are one vector, so that an optimiser and a file
hold them as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carelake.models.logistic import sigmoid
from carelake.models.matrix import Floats, Mask

__all__ = ["Gru", "adam", "fresh"]


@dataclass(frozen=True)
class Gru:
    """Weights of ``inputs`` numbers a step and ``width`` units.

    Attributes:
        weights: (size(inputs, width),): W (inputs, 3 width), U (width, 3 width), b (3 width), cn (width), line
            (width), offset.
    """

    inputs: int
    width: int
    weights: Floats

    @staticmethod
    def size(inputs: int, width: int) -> int:
        """How many weights there are."""
        return 3 * width * (inputs + width + 1) + 2 * width + 1

    def _parts(self, vector: Floats) -> tuple[Floats, ...]:
        three = 3 * self.width
        shapes = ((self.inputs, three), (self.width, three), (three,), (self.width,), (self.width,), (1,))
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return tuple(part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True))

    def score(self, x: Floats) -> Floats:
        """(n,) log odds of (n, steps, inputs) numbers."""
        _, _, _, _, line, offset = self._parts(self.weights)
        out: Floats = self._states(x)[0][-1] @ line + offset[0]
        return out

    def _states(self, x: Floats) -> tuple[list[Floats], list[tuple[Floats, ...]]]:
        """The state before each step and after the last, and the gates of each."""
        w, u, b, c, _, _ = self._parts(self.weights)
        states: list[Floats] = [np.zeros((len(x), self.width))]
        gates: list[tuple[Floats, ...]] = []
        for at in range(x.shape[1]):
            h = states[-1]
            given, kept, both = x[:, at] @ w + b, h @ u, 2 * self.width
            z, r = np.split(sigmoid(given[:, :both] + kept[:, :both]), 2, axis=1)
            inner = kept[:, both:] + c
            n = np.tanh(given[:, both:] + r * inner)
            gates.append((z, r, n, inner))
            states.append((1.0 - z) * n + z * h)
        return states, gates

    def gradient(self, x: Floats, y: Mask) -> tuple[float, Floats]:
        """Mean log loss, and its derivative by the weights (backwards through time)."""
        _, u, _, _, line, offset = self._parts(self.weights)
        states, gates = self._states(x)
        score = states[-1] @ line + offset[0]
        loss = float((np.logaddexp(0.0, score) - y * score).mean())
        out = np.zeros_like(self.weights)
        dw, du, db, dc, dline, doffset = self._parts(out)
        error = (sigmoid(score) - y) / len(y)
        dline += states[-1].T @ error
        doffset += error.sum()
        dh = error[:, None] * line
        for at in range(x.shape[1] - 1, -1, -1):
            (z, r, n, inner), h = gates[at], states[at]
            dn = dh * (1.0 - z) * (1.0 - n * n)
            dr = dn * inner * r * (1.0 - r)
            dz = dh * (h - n) * z * (1.0 - z)
            given, kept = np.hstack([dz, dr, dn]), np.hstack([dz, dr, dn * r])
            dw += x[:, at].T @ given
            du += h.T @ kept
            db += given.sum(axis=0)
            dc += (dn * r).sum(axis=0)
            dh = dh * z + kept @ u.T
        return loss, out


def fresh(inputs: int, width: int, seed: int) -> Gru:
    """Random weights of the size that keeps states alive."""
    random = np.random.default_rng(seed)
    weights = random.normal(0.0, 1.0 / np.sqrt(inputs + width), Gru.size(inputs, width))
    weights[-width - 1 :] *= 0.1
    return Gru(inputs, width, weights)


def adam(
    moments: tuple[Floats, Floats], step: int, gradient: Floats, rate: float
) -> tuple[tuple[Floats, Floats], Floats]:
    """Moments after one more gradient, and the step to take (Kingma and Ba 2015)."""
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.999 * moments[1] + 0.001 * gradient**2
    size = rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return (first, second), size
