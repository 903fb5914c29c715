"""Purposes of use: those that are asked for here, and what codes of HL7's list say of them."""

from __future__ import annotations

import tomllib
from functools import cache, lru_cache
from importlib import resources

__all__ = ["PURPOSES", "at_most", "may_be"]

PURPOSES = ("TREAT", "HPAYMT", "HOPERAT", "HRESCH", "PUBHLTH", "ETREAT", "HSYSADMIN")
"""HL7 PurposeOfUse codes that the guardrails know: a request has one of them."""


@cache
def _parents() -> dict[str, str]:
    told = resources.files(__package__).joinpath("purposes.toml").read_text(encoding="utf-8")
    return {below: code for code, all_below in tomllib.loads(told).items() for below in all_below}


@lru_cache(256)
def at_most(code: str) -> frozenset[str] | None:
    """The purposes that a code covers for certain; None where it is no purpose of use that is known."""
    if code not in _parents() and code != "PurposeOfUse":
        return None
    return frozenset(one for one in PURPOSES if code in _above(one))


@lru_cache(256)
def may_be(code: str) -> frozenset[str] | None:
    """The purposes whose requests a code may be about: also the one that it is a kind of. None as `at_most`."""
    covered = at_most(code)
    if covered is None:
        return None
    return covered | frozenset([one for one in _above(code) if one in PURPOSES][:1])


def _above(code: str) -> tuple[str, ...]:
    """A code and all that it is a kind of, the nearest first."""
    found = [code]
    while (above := _parents().get(found[-1])) is not None:
        found.append(above)
    return tuple(found)
