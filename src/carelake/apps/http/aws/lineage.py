"""Lineage as SageMaker tells of it: a reading of the nouns that acts made, by content and not by path.

Things are artifacts, endpoints are contexts, and what somebody decided or ran is an action. An ARN holds the noun's
ref, ``artifact/model-HEX``. https://docs.aws.amazon.com/sagemaker/latest/dg/lineage-tracking-entities.html
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from carelake.apps.http.aws.models import SAGEMAKER
from carelake.apps.http.aws.pages import page
from carelake.apps.http.aws.served import Asked, Served
from carelake.audit.tables import noun as table
from carelake.core.clock import instant
from carelake.core.errors import Invalid, NotFound
from carelake.core.nouns import KINDS, Noun

__all__ = ["ACTIONS", "CONTEXTS", "operations", "ref_of", "vertex_arn"]

ACTIONS = frozenset({"approval", "erasure", "finding", "run", "verdict"})
CONTEXTS = frozenset({"endpoint"})
_TYPES = {"approval": "Approval", "endpoint": "Endpoint", "model": "Model", "run": "PipelineExecution"}
_WALKED = 2000
"""Nouns of one walk; a page is of these."""
_LISTED = 5000
_DEEPEST = 10
_HIDDEN = frozenset({"resource"})
"""Kept by the store, and shown on a walk only, to who may see them."""


def operations() -> list[Served]:
    """What of lineage is served."""
    of = "lineage:read"
    return [
        Served(SAGEMAKER, "QueryLineage", of, _start, query),
        Served(SAGEMAKER, "ListAssociations", of, "nouns", associations),
        *(Served(SAGEMAKER, f"List{word}s", of, "nouns", _lister(word)) for word in _WORDS),
        *(Served(SAGEMAKER, f"Describe{word}", of, "nouns", _describer(word)) for word in _WORDS),
    ]


_WORDS = {"Artifact": "artifact", "Action": "action", "Context": "context"}


def _word(kind: str) -> str:
    return "Action" if kind in ACTIONS else "Context" if kind in CONTEXTS else "Artifact"


def _type(kind: str) -> str:
    return _TYPES.get(kind, kind.capitalize() if kind in ACTIONS else "DataSet")


def vertex_arn(asked: Asked, ref: str) -> str:
    """The ARN of a noun."""
    kind, _, digest = ref.partition(":")
    return asked.arn(f"{_WORDS[_word(kind)]}/{kind}-{digest}")


def ref_of(asked: Asked, arn: str) -> str:
    """The ref of an ARN.

    Raises:
        NotFound: ``audit.no_such_noun``: it is none of ours. Invalid: ``core.arn``: of another account.
    """
    named = asked.named(arn, "")
    kind, _, digest = named.rpartition("/")[2].partition("-")
    if kind not in KINDS or not digest:
        raise NotFound(
            "audit.no_such_noun", "No noun has this ARN; ListArtifacts, ListActions and ListContexts tell."
        )
    return f"{kind}:{digest}"


def _start(said: Mapping[str, Any]) -> str:
    """What the act says it is about."""
    kind, _, digest = next(iter(said.get("StartArns", ())), "").rpartition("/")[2].partition("-")
    return f"{kind}:{digest}" if kind in KINDS else "nouns"


# -- a walk


def query(asked: Asked) -> dict[str, Any]:
    """What a noun was made from, what was made from it, or both; the nearest first, itself at the head."""
    said = asked.said
    if len(said.get("StartArns", ())) != 1:
        raise Invalid("http.aws_input", "StartArns: expected the one ARN at which the walk begins.")
    with asked.door.vault.database.reading(asked.permit) as tx:
        found = _walked(asked, tx, ref_of(asked, said["StartArns"][0]))
        keep = _filter(asked, tx, found)
    wanted = [one for one in found if one.ref in keep]
    shown, more = page(asked, "QueryLineage", wanted)
    vertices = [
        {"Arn": vertex_arn(asked, one.ref), "Type": _type(one.kind), "LineageType": _word(one.kind)} for one in shown
    ]
    edges = list(_edges(asked, shown, keep)) if said.get("IncludeEdges", True) else []
    return {"Vertices": vertices, "Edges": edges, **more}


def _walked(asked: Asked, tx: Connection, ref: str) -> list[Noun]:
    door, permit = asked.door, asked.permit
    direction, depth = asked.said.get("Direction", "Both"), asked.said.get("MaxDepth", _DEEPEST)
    if depth < 1:
        raise Invalid("http.aws_input", "MaxDepth: expected at least 1.")
    kin = {"resource": door.resources.resolver(permit)}
    told: dict[str, Any] = {"kin": kin, "account": permit.account, "limit": _WALKED}
    found = door.nouns.lineage(tx, ref, depth=depth if direction != "Descendants" else 0, **told)
    if direction != "Ascendants":
        found += door.nouns.descendants(tx, ref, depth=depth, **told)
    return list({one.ref: one for one in found}.values())


def _filter(asked: Asked, tx: Connection, found: Sequence[Noun]) -> set[str]:
    """Refs of those that the filters let through."""
    said = asked.said.get("Filters", {})
    keep = {
        one.ref
        for one in found
        if _among(said, "Types", _type(one.kind))
        and _among(said, "LineageTypes", _word(one.kind))
        and all(_properties(one).get(name) == value for name, value in said.get("Properties", {}).items())
    }
    after = max((said[n] for n in ("CreatedAfter", "ModifiedAfter") if n in said), default=None)
    before = min((said[n] for n in ("CreatedBefore", "ModifiedBefore") if n in said), default=None)
    if after is None and before is None:
        return keep
    moments = _moments(tx, [one.ref for one in found])
    return {ref for ref in keep if ref in moments and _within(moments[ref], after, before)}


def _among(said: Mapping[str, Any], name: str, value: str) -> bool:
    return not said.get(name) or value in said[name]


def _within(moment: datetime, after: datetime | None, before: datetime | None) -> bool:
    return (after is None or moment > after) and (before is None or moment < before)


def _edges(asked: Asked, shown: Iterable[Noun], known: set[str]) -> Iterator[dict[str, str]]:
    """The arrows into what is shown, from what was found."""
    for one in shown:
        for source in dict.fromkeys(one.made_from):
            if source in known:
                yield {
                    "SourceArn": vertex_arn(asked, source),
                    "DestinationArn": vertex_arn(asked, one.ref),
                    "AssociationType": _association(source.partition(":")[0], one.kind),
                }


def _association(source: str, destination: str) -> str:
    """https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_AddAssociation.html"""
    if destination in CONTEXTS:
        return "AssociatedWith"
    if source in ACTIONS:
        return "Produced"
    return "ContributedTo" if destination in ACTIONS or destination == "model" else "DerivedFrom"


def associations(asked: Asked) -> dict[str, Any]:
    """The arrows out of one noun, or into it, or the one between two."""
    said = asked.said
    ends = {name: ref_of(asked, said[name]) for name in ("SourceArn", "DestinationArn") if name in said}
    if not ends:
        raise Invalid("http.aws_input", "SourceArn or DestinationArn: expected one of them, or both.")
    with asked.door.vault.database.reading(asked.permit) as tx:
        pairs = _pairs(asked, tx, ends)
        moments = _moments(tx, [destination for _, destination in pairs])
    found = [row for pair in pairs if (row := _row(asked, pair, moments)) is not None]
    sort = said.get("SortBy", "CreationTime")
    found.sort(key=lambda row: str(row.get(sort, "")), reverse=said.get("SortOrder", "Descending") == "Descending")
    shown, more = page(asked, "ListAssociations", found)
    return {"AssociationSummaries": shown, **more}


def _pairs(asked: Asked, tx: Connection, ends: Mapping[str, str]) -> list[tuple[str, str]]:
    door, permit = asked.door, asked.permit
    source, destination = ends.get("SourceArn"), ends.get("DestinationArn")
    if destination is not None:
        into = door.nouns.get(tx, destination, account=permit.account).made_from
        return [(one, destination) for one in dict.fromkeys(into) if source in (None, one)]
    assert source is not None
    below = door.nouns.descendants(tx, source, account=permit.account, depth=1, limit=_WALKED)
    return [(source, one.ref) for one in below]


def _row(asked: Asked, pair: tuple[str, str], moments: Mapping[str, datetime]) -> dict[str, Any] | None:
    said, (source, destination) = asked.said, pair
    kinds = (source.partition(":")[0], destination.partition(":")[0])
    row = {
        "SourceArn": vertex_arn(asked, source),
        "DestinationArn": vertex_arn(asked, destination),
        "SourceType": _type(kinds[0]),
        "DestinationType": _type(kinds[1]),
        "AssociationType": _association(*kinds),
        "CreationTime": moments.get(destination),
    }
    if any(name in said and row[name] != said[name] for name in ("SourceType", "DestinationType", "AssociationType")):
        return None
    after, before = said.get("CreatedAfter"), said.get("CreatedBefore")
    if (after or before) and (destination not in moments or not _within(moments[destination], after, before)):
        return None
    return row


# -- entities


def _lister(word: str) -> Any:
    def lists(asked: Asked) -> dict[str, Any]:
        shown, more = page(asked, f"List{word}s", _listed(asked, word), 10)
        account = asked.permit.account
        with asked.door.vault.database.reading(asked.permit) as tx:
            found = [(asked.door.nouns.get(tx, ref, account=account), at) for ref, at in shown]
        return {f"{word}Summaries": [_summary(asked, one, at, word) for one, at in found], **more}

    return lists


def _listed(asked: Asked, word: str) -> list[tuple[str, datetime]]:
    """Refs of the account that are told of by this word, the newest first where nothing else is said."""
    said, permit = asked.said, asked.permit
    kinds = [kind for kind in KINDS if _word(kind) == word and kind not in _HIDDEN]
    kinds = [kind for kind in kinds if said.get(f"{word}Type", _type(kind)) == _type(kind)]
    query = select(table.c.ref, table.c.at).where(table.c.account == permit.account, table.c.kind.in_(kinds))
    newest = said.get("SortOrder", "Descending") == "Descending"
    query = query.order_by(table.c.number.desc() if newest else table.c.number).limit(_LISTED)
    with asked.door.vault.database.reading(permit) as tx:
        rows = [(str(ref), instant(at)) for ref, at in tx.execute(query)]
    return [
        (ref, at)
        for ref, at in rows
        if _within(at, said.get("CreatedAfter"), said.get("CreatedBefore"))
        and said.get("SourceUri", _uri(ref)) == _uri(ref)
    ]


def _describer(word: str) -> Any:
    given = "ArtifactArn" if word == "Artifact" else f"{word}Name"

    def describe(asked: Asked) -> dict[str, Any]:
        ref = ref_of(asked, asked.said[given])
        if _word(ref.partition(":")[0]) != word:
            raise NotFound("audit.no_such_noun", f"No {word.lower()} has this name.")
        with asked.door.vault.database.reading(asked.permit) as tx:
            one = asked.door.nouns.get(tx, ref, account=asked.permit.account)
            at = _moments(tx, [ref])[ref]
        asked.permit.log.read(ref)
        return {**_summary(asked, one, at, word), "Properties": _properties(one), **_made(asked, one, word)}

    return describe


def _summary(asked: Asked, one: Noun, at: datetime, word: str) -> dict[str, Any]:
    source: dict[str, Any] = {"SourceUri": _uri(one.ref)}
    if word == "Artifact":
        source["SourceTypes"] = [{"SourceIdType": "Custom", "Value": one.ref}]
    return {
        f"{word}Arn": vertex_arn(asked, one.ref),
        f"{word}Name": one.ref.replace(":", "-", 1),
        "Source": source,
        f"{word}Type": _type(one.kind),
        **({"Status": "Completed"} if word == "Action" else {}),
        "CreationTime": at,
        "LastModifiedTime": at,
    }


def _made(asked: Asked, one: Noun, word: str) -> dict[str, Any]:
    return {} if word == "Context" else {"MetadataProperties": {"GeneratedBy": f"act:{one.made_by}"}}


def _uri(ref: str) -> str:
    return f"carelake://{ref.replace(':', '/', 1)}"


def _properties(one: Noun) -> dict[str, str]:
    """Facts of a noun that are plain texts and numbers; a noun's body holds no clinical value."""
    told = {name: str(value) for name, value in one.body.items() if isinstance(value, str | int | float)}
    return {"Kind": one.kind, "State": one.state, **dict(list(told.items())[:25])}


def _moments(tx: Connection, refs: Sequence[str]) -> dict[str, datetime]:
    """When nouns were written; those that the store keeps are not among them."""
    found: dict[str, datetime] = {}
    for at in range(0, len(refs), 500):
        query = select(table.c.ref, table.c.at).where(table.c.ref.in_(refs[at : at + 500]))
        found.update({str(ref): instant(moment) for ref, moment in tx.execute(query)})
    return found
