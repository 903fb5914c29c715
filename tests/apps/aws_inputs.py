"""Inputs that botocore's models take, drawn by hypothesis."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from hypothesis import strategies as st

from carelake.apps.http.aws.models import shape_of
from carelake.apps.http.aws.taking import reader_of
from carelake.core.errors import Invalid


@cache
def strategy(service: str, name: str, deep: int = 0) -> st.SearchStrategy[Any]:
    """Values that a shape takes, as botocore is given them."""
    shape = shape_of(service, name)
    low, high = shape.metadata.get("min", 0), shape.metadata.get("max")
    kind = shape.type_name
    if kind == "structure":
        return _structures(service, shape, deep)
    if kind == "list":
        most = min(high if high is not None else 2, max(low, 2))
        return st.lists(strategy(service, shape.member.name, deep + 1), min_size=low, max_size=most)
    if kind == "map":
        pair = (strategy(service, shape.key.name), strategy(service, shape.value.name, deep + 1))
        return st.dictionaries(*pair, min_size=low, max_size=low + 1)
    if kind == "string":
        return _texts(service, shape, low, high)
    if kind in ("integer", "long"):
        bits = 31 if kind == "integer" else 63
        least = shape.metadata.get("min", -(1 << bits))
        return st.integers(least, min(high if high is not None else 1 << 30, (1 << bits) - 1))
    if kind in ("double", "float"):
        return st.integers(int(low), int(high or 100)).map(float)
    if kind == "boolean":
        return st.booleans()
    if kind == "timestamp":
        return st.integers(946_684_800, 4_102_444_800).map(lambda n: datetime.fromtimestamp(n, UTC))
    return st.binary(min_size=low, max_size=20)


def _structures(service: str, shape: Any, deep: int) -> st.SearchStrategy[Any]:
    required = set(shape.required_members)
    wanted = {n: m.name for n, m in shape.members.items() if deep < 3 or n in required}
    members = {n: strategy(service, m, deep + 1) for n, m in wanted.items() if n in required or not _long(service, m)}
    if shape.is_tagged_union:
        return st.one_of(*(st.fixed_dictionaries({name: one}) for name, one in members.items()))
    needed = {n: m for n, m in members.items() if n in required}
    return st.fixed_dictionaries(needed, optional={n: m for n, m in members.items() if n not in required})


def _long(service: str, name: str) -> bool:
    """Lists that begin with many: they are not drawn."""
    return bool(shape_of(service, name).metadata.get("min", 0) > 60)


def _texts(service: str, shape: Any, low: int, high: int | None) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    read, pattern = reader_of(service, shape.name), shape.metadata.get("pattern")
    if not pattern or pattern == ".*":
        most = min(high if high is not None else 12, max(low, 12))
        return st.text("abcé /%&+\"'{}", min_size=low, max_size=most)
    known = [one for one in _FORMS if takes(read, one)]
    with suppress(re.error):
        drawn = st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True, alphabet=st.characters(codec="ascii"))
        return drawn.filter(partial(takes, read)) if not known else st.sampled_from(known)
    return st.sampled_from(known) if known else st.nothing()


_ARN = "arn:aws:sagemaker:us-east-1:123456789012:"
_FORMS = ["a", "abc-1", "1", "x" * 20, "s3://bucket/key", "arn:aws:iam::123456789012:role/name-1", "text/csv"]
_FORMS += [
    _ARN + one for one in ("artifact/a", "action/a", "context/a", "feature-group/a", "endpoint/a", "pipeline/a")
]
_FORMS += ["2020-01-01T00:00:00Z", "P1D", "-PT1H", "PT0H", "a" * 32, "https://example.org/a"]
_FORMS += [_ARN + "model-package/a/1", _ARN + "model-package-group/a", "sg-12345678", "subnet-12345678", "key"]


def takes(read: Any, text: Any) -> bool:
    try:
        read(text, "")
    except Invalid:
        return False
    return True
