"""``Observation/$lastn``: the newest observations of each kind (https://hl7.org/fhir/R4/observation-operation-lastn.html).

A kind is a code: observations that share a coding are of one kind, and so are those that are joined by others that
share one with both (the transitive closure). Those with a text alone are of one kind by that text. All of that is
read from the index; only what is answered is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.fhir.query import Query
from carelake.fhir.search import SearchParameter, parameters
from carelake.fhir.terminology import Terminology
from carelake.store.search import SearchResult
from carelake.store.search.building import Build, every, prepare, restore
from carelake.store.search.compiling import Compiler
from carelake.store.search.includes import Includes
from carelake.store.search.searches import Searches
from carelake.vault.database import scope_of

__all__ = ["MOST", "LastN"]

MOST = 50_000
"""Observations that one request may look through."""
_MOST_ANSWERED = 5000
_CHUNK = 2000

_Coding = tuple[int, int, str]
"""Which table (0 codings, 1 texts), system, code or folded text."""


class _One(NamedTuple):
    """An observation: when (the end of its time, or None), and its seq."""

    at: int | None
    seq: int


class LastN:
    """Answers ``$lastn``."""

    def __init__(self, searches: Searches, included: int) -> None:
        """Args: included: how many resources ``_include`` may bring (setting ``search.included``)."""
        self._searches, self._included = searches, included

    def find(
        self,
        permit: Permit,
        tx: Connection,
        query: Query,
        most: int,
        *,
        terminology: Terminology | None = None,
        parameters_of: Callable[[str], Mapping[str, SearchParameter]] = parameters,
    ) -> SearchResult:
        """The newest ``most`` observations of each kind; kinds in order of their newest one, newest first.

        Args:
            query: which observations count; how it shows them (``_summary``, ``_elements``, ``_include``) holds too.

        Raises:
            Invalid: ``store.lastn_too_wide``.
        """
        prepare(tx)
        compiler, seqs = self._searches.matching(permit, tx, query, MOST + 1, terminology)
        if len(seqs) > MOST:
            raise Invalid(
                "store.lastn_too_wide",
                f"More than {MOST} observations match; $lastn is asked for one patient and some codes or a category.",
            )
        chosen = _newest(_kinds(seqs, self._codings(compiler, seqs)), self._moments(compiler, seqs), most)
        if len(chosen) > _MOST_ANSWERED:
            raise Invalid(
                "store.lastn_too_wide",
                f"The answer would hold more than {_MOST_ANSWERED} observations; give a smaller max, or fewer codes.",
            )
        joined = Includes(compiler, parameters_of, lambda kind: True, self._included)
        along = joined.find(query, chosen)
        opened = self._searches.opened(permit, tx, [*chosen, *along], query)
        permit.log.count(searched=1)
        if scope_of(tx).writing:
            restore(tx)
        found = tuple(opened[seq] for seq in chosen if seq in opened)
        return SearchResult(len(found), found, tuple(opened[s] for s in along if s in opened), "", joined.cut)

    @staticmethod
    def _codings(compiler: Compiler, seqs: Sequence[int]) -> dict[int, list[_Coding]]:
        """Codings and texts of ``Observation.code``, by seq."""
        kind = compiler.kind("Observation")
        source = next(use.source for use in parameters("Observation")["code"].uses)
        sides = [one for one in (source, source.text) if one is not None]
        known = compiler.params(kind, sides)
        found: dict[int, list[_Coding]] = {}
        for start in range(0, len(seqs), _CHUNK):
            page = seqs[start : start + _CHUNK]
            for table, one in enumerate(sides):
                param = known.get(one.name)
                if param is None:
                    continue
                build = Build(compiler.dialect)
                columns, name = (("c.system, c.code", "ix_token"), ("0, c.value", "ix_string"))[table]
                told = every((build.within("c.seq", page), f"c.param = {build(param)}"))
                for seq, system, code in build.run(
                    compiler.tx, f"SELECT c.seq, {columns} FROM {name} c WHERE {told}"
                ):
                    found.setdefault(int(seq), []).append((table, int(system), str(code)))
        return found

    @staticmethod
    def _moments(compiler: Compiler, seqs: Sequence[int]) -> dict[int, int]:
        """The end of each observation's time, in microseconds since 1970."""
        kind = compiler.kind("Observation")
        sources = [one for use in parameters("Observation")["date"].uses for one in (use.source, *use.source.spans)]
        params = sorted(compiler.params(kind, sources).values())
        found: dict[int, int] = {}
        for start in range(0, len(seqs) if params else 0, _CHUNK):
            build = Build(compiler.dialect)
            told = every((build.within("d.seq", seqs[start : start + _CHUNK]), build.numbers("d.param", params)))
            sql = f"SELECT d.seq, max(d.high) FROM ix_date d WHERE {told} GROUP BY d.seq"
            found.update({int(seq): int(high) for seq, high in build.run(compiler.tx, sql)})
        return found


def _kinds(seqs: Sequence[int], codings: Mapping[int, Sequence[_Coding]]) -> dict[int, list[int]]:
    """Seqs by the kind that they are of. A text tells the kind only of what has no coding."""
    leader: dict[_Coding, _Coding] = {}

    def first(one: _Coding) -> _Coding:
        while leader.setdefault(one, one) != one:
            leader[one] = leader[leader[one]]
            one = leader[one]
        return one

    told: dict[int, list[_Coding]] = {}
    for seq in seqs:
        listed = [one for one in codings.get(seq, ()) if one[2]]
        coded = [one for one in listed if not one[0]]
        told[seq] = coded or listed or [(2, 0, "")]
        for one in told[seq][1:]:
            leader[first(one)] = first(told[seq][0])
    found: dict[_Coding, list[int]] = {}
    for seq in seqs:
        found.setdefault(first(told[seq][0]), []).append(seq)
    return {listed[0]: listed for listed in found.values()}


def _newest(kinds: Mapping[int, Sequence[int]], moments: Mapping[int, int], most: int) -> list[int]:
    """The newest of each kind, what has no time last; kinds by their newest one."""
    chosen = [sorted((_One(moments.get(seq), seq) for seq in seqs), key=_age)[:most] for seqs in kinds.values()]
    return [one.seq for listed in sorted(chosen, key=lambda listed: _age(listed[0])) for one in listed]


def _age(one: _One) -> tuple[bool, int, int]:
    return one.at is None, -(one.at or 0), -one.seq
