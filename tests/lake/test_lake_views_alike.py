"""Where engines could differ: the order of conditions, what a regular expression takes for a letter, many unions."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest

from carelake.core.errors import Invalid, Unsupported
from carelake.lake.views import run

# pyspark leaves sockets to the garbage collector, which tells of them.
SPARK = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sockets of a test go while it is still that test that is told of them."""
    if "spark" in request.node.name:
        pytest.importorskip("pyspark")
    yield
    if "spark" in request.node.name:
        gc.collect()


TWICE = {"resourceType": "Patient", "id": "a", "name": [{"given": ["X", "Y"]}]}


def view(*where: str, path: str = "id") -> dict[str, Any]:
    column = {"name": "v", "path": path}
    return {"resource": "Patient", "select": [{"column": [column]}], "where": [{"path": one} for one in where]}


@pytest.mark.parametrize("engine", ["oracle", "duckdb", pytest.param("spark", marks=SPARK)])
@pytest.mark.parametrize(
    ("where", "fails"),
    [
        (("active = true", "name.given = 'X' and name.given.exists()", "name.given.single() = 'X'"), False),
        (("id = 'b'", "name.given.single() = 'X'"), False),
        (("id = 'a'", "name.given.single() = 'X'"), True),
        (("name.given.single() = 'X'", "id = 'b'"), True),
    ],
)
def test_conditions_are_looked_at_in_their_order(where: tuple[str, ...], fails: bool, engine: Any) -> None:
    if not fails:
        assert run(view(*where), [TWICE], engine=engine) == []
        return
    with pytest.raises(Invalid) as told:
        run(view(*where), [TWICE], engine=engine)
    assert told.value.code == "lake.view_cardinality"


TEXTS = ["é1", "١", "a\u00a0b", "x_y", "]", "-", "a]b", "\x1c", "abc", "[", "ß", "9", " ", "\t", "\u2003", "a^b", "$"]
PATTERNS = [r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"^\w+$", r"[\w-]+$", r"[^\s]", r"[^\d\s]+$", r"[]a]", r"[^]]"]
PATTERNS += [r"\[", r"[a\]]", r"[a-c]+", r"\.", r"[$]"]


@pytest.mark.parametrize("engine", ["duckdb", pytest.param("spark", marks=SPARK)])
def test_a_regular_expression_takes_the_same_letters(engine: Any) -> None:
    patients = [{"resourceType": "Patient", "id": "a", "gender": text} for text in TEXTS]
    columns = [
        {"name": f"v{n}", "path": "gender.matches('{}')".format(pattern.replace("\\", "\\\\"))}
        for n, pattern in enumerate(PATTERNS)
    ]
    asked = {"resource": "Patient", "select": [{"column": columns}]}
    assert run(asked, patients, engine=engine) == run(asked, patients, engine="oracle")


def test_a_negated_class_in_a_class_is_refused() -> None:
    with pytest.raises(Unsupported):
        run(view(path=r"id.matches('[\\W_]')"), [TWICE])


def unions(many: int, wide: int = 3) -> dict[str, Any]:
    select = [
        {"unionAll": [{"forEach": "contact", "column": [{"name": f"c{n}", "path": "gender"}]} for _ in range(wide)]}
        for n in range(many)
    ]
    return {"resource": "Patient", "select": select}


def test_unions_beside_each_other_multiply_and_are_bounded() -> None:
    contact = {"contact": [{"gender": "male"}]}
    assert len(run(unions(3), [{"resourceType": "Patient", "id": "a", **contact}])) == 27
    began = time.monotonic()
    with pytest.raises(Unsupported) as told:
        run(unions(40), [TWICE])
    assert told.value.code == "lake.view_sql"
    assert time.monotonic() - began < 5


def test_columns_are_bounded_together() -> None:
    heavy = "maritalStatus" + ".where(text.exists())" * 9 + ".text"
    assert run(view(path=heavy), [TWICE]) == [{"v": None}]
    many = [{"name": f"c{n}", "path": heavy} for n in range(1_000)]
    with pytest.raises(Unsupported):
        run({"resource": "Patient", "select": [{"column": many}]}, [TWICE])
