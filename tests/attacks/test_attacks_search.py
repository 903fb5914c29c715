"""Search shows nothing that is denied: not in matches, totals, includes, pages, order or errors.

The oracle filters first and searches then: beside the record there is, for each kind of caller, one that never held
what that caller may not see. Whatever is asked, both give the same answer, to the last page and the last error.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from carelake.access.gate import Gate
from carelake.access.narrowed import read_grant
from carelake.access.policy import Policies, Request
from carelake.access.principals import Principal, Principals
from carelake.apps.searching import entries, find
from carelake.apps.wiring import import_tables
from carelake.core.canonical import dump_as_given
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, NotFound
from carelake.core.ids import SequenceIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings
from carelake.fhir.compartment import owner
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import parse_text
from carelake.store import Resources
from carelake.store.write import parsed
from carelake.vault.workspace import Vault

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRANTS = ("clinical:read", "clinical:write", "rows:read", "rows:write")
MOST_PAGES = 60
Resource = dict[str, Any]

POLICIES = """
@id("clinicians see no diagnoses and no documents")
forbid (principal, action, resource)
when { principal.roles.contains("clinician") && ["Condition", "DocumentReference"].contains(context.type) };

@id("applications see nobody who works here")
forbid (principal, action, resource)
when { principal.roles.contains("application") && ["Practitioner", "Organization"].contains(context.type) };

@id("operations need no measurements, no lists and no terminology")
forbid (principal, action, resource)
when {
  context.purpose == "HOPERAT" && ["Observation", "List", "ValueSet", "CodeSystem"].contains(context.type)
};

@id("research reads no patients")
forbid (principal, action, resource)
when { context.purpose == "HRESCH" && context.type == "Patient" };
"""

PRINCIPALS = [
    Principal("olaf", "person", ("operator",), ("production", "research")),
    Principal("cora", "person", ("clinician",), ("production",)),
    Principal("apps", "service", ("application",), ("production", "research")),
    Principal("comp", "person", ("compliance",), ("production", "research")),
]
ACCOUNTS = ("production", "research", "development")
PURPOSES = ("TREAT", "HOPERAT", "HRESCH", "HSYSADMIN")
PATIENTS = ("p1", "p2", "p3", "p9")


# -- the record ------------------------------------------------------------------------------------------------------


def holdings(seed: int) -> list[Resource]:
    """Resources of one account; ids are the same in every account, contents are not."""
    rng = random.Random(seed)

    def pick(kind: str, most: int, chance: float = 0.9) -> dict[str, Any] | None:
        return {"reference": f"{kind}/{kind[0].lower()}{rng.randint(1, most)}"} if rng.random() < chance else None

    def coded() -> dict[str, Any]:
        code = rng.choice("abc")
        return {"coding": [{"system": "urn:s", "code": code, "display": f"word {code} {rng.choice('xyz')}"}]}

    def made(kind: str, key: str, **said: Any) -> Resource:
        return {"resourceType": kind, "id": key, **{name: value for name, value in said.items() if value is not None}}

    found = [made("Organization", f"o{n}", name=rng.choice(["North", "South"])) for n in (1, 2)]
    found += [
        made(
            "Practitioner",
            f"p{n}",
            name=[{"family": rng.choice(["Lee", "Loo"])}],
            gender=rng.choice(["male", "female"]),
        )
        for n in (1, 2)
    ]
    for n in (1, 2, 3):
        found.append(
            made(
                "Patient",
                f"p{n}",
                name=[{"family": rng.choice(["Able", "Abbott", "Baker"]), "given": [rng.choice(["Ann", "Bo"])]}],
                gender=rng.choice(["male", "female"]),
                birthDate=f"19{rng.randint(30, 99)}-0{rng.randint(1, 9)}-11",
                generalPractitioner=[one] if (one := pick("Practitioner", 2)) else None,
                managingOrganization=pick("Organization", 2, 0.7),
            )
        )
    for n in range(1, 6):
        found.append(
            made(
                "Encounter",
                f"e{n}",
                status=rng.choice(["finished", "planned"]),
                **{"class": {"code": rng.choice(["AMB", "IMP"])}},
                subject=pick("Patient", 3),
                serviceProvider=pick("Organization", 2, 0.6),
                period={"start": f"202{rng.randint(0, 4)}-01-0{rng.randint(1, 9)}"},
            )
        )
    for n in range(1, 11):
        found.append(
            made(
                "Observation",
                f"o{n}",
                status=rng.choice(["final", "amended"]),
                code=coded(),
                subject=pick("Patient", 3),
                encounter=pick("Encounter", 5, 0.6),
                performer=[one] if (one := pick("Practitioner", 2, 0.6)) else None,
                hasMember=[{"reference": f"Observation/o{rng.randint(1, 10)}"}] if rng.random() < 0.4 else None,
                effectiveDateTime=f"202{rng.randint(0, 4)}-0{rng.randint(1, 9)}-03",
                valueQuantity={"value": rng.randint(1, 9), "unit": "mg", "system": "urn:u", "code": "mg"},
            )
        )
    for n in range(1, 6):
        found.append(
            made(
                "Condition",
                f"c{n}",
                code=coded(),
                subject=pick("Patient", 3, 1.0),
                encounter=pick("Encounter", 5, 0.5),
            )
        )
    for n in (1, 2, 3):
        found.append(
            made(
                "DocumentReference",
                f"d{n}",
                status="current",
                subject=pick("Patient", 3),
                content=[{"attachment": {"contentType": "text/plain"}}],
                relatesTo=[{"code": "replaces", "target": {"reference": f"DocumentReference/d{rng.randint(1, 3)}"}}],
            )
        )
    listed = [{"item": {"reference": one}} for one in ("Patient/p1", "Observation/o1", "Observation/o3")]
    found.append(made("List", "l1", status="current", mode="working", entry=rng.sample(listed, 2)))
    include = [{"system": "urn:s", "concept": [{"code": rng.choice("abc")}]}]
    found.append(made("ValueSet", "v1", url="http://v.test/one", status="active", compose={"include": include}))
    return found


class World:
    """One workspace."""

    def __init__(self, folder: Path, held: dict[str, list[Resource]]) -> None:
        import_tables()
        self.clock = FixedClock(NOW)
        self.vault = Vault.create(
            folder / "w",
            settings=Settings(workspace="a" * 32),
            key_dir=folder / "k",
            clock=self.clock,
            ids=SequenceIds(),
        )
        (folder / "policies").mkdir()
        (folder / "policies" / "types.cedar").write_text(POLICIES)
        self.gate = Gate(self.vault, Policies.load(folder / "policies"))
        self.resources = Resources(self.vault)
        with self.vault.database.ledger() as connection:
            for who in PRINCIPALS:
                Principals(connection).add(who)
        for account, resources in held.items():
            permit = self.permit(account)
            with self.vault.database.transaction(permit) as tx:
                self.resources.keep(permit, tx, "landing:1", [parsed(one) for one in resources])

    def permit(self, account: str, *scope: str, action: str = "test:act") -> Permit:
        said: dict[str, Any] = {"act": "a" * 32, "principal": "olaf", "purpose": "TREAT", "action": action}
        expires = NOW + timedelta(days=1)
        return mint(**said, account=account, target="t", grants=GRANTS, scope=scope, expires=expires, log=_Silent())

    def answer(self, query: str, account: str, *scope: str) -> Answer:
        """As one who sees all of an account, or what a scope leaves of it."""
        door = SimpleNamespace(resources=self.resources, gate=SimpleNamespace(widen=lambda permit, _: permit))
        permit = self.permit(account, *scope)
        return _paged(lambda page: find(door, permit, lambda registry: parse_text(query, registry=registry), page))

    def answer_to(self, who: Principal, account: str, purpose: str, query: str) -> Answer:
        """As a principal, through the gate."""
        target = next(filter(_is_type, query.partition("?")[0].split("/")[::-1]), "record")

        def page_of(page: str) -> Any:
            with self.gate.enter(who, "record:search", target, purpose, account=account) as permit:
                return find(self, permit, lambda registry: parse_text(query, registry=registry), page)

        return _paged(page_of)


class _Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        if name == "ended":
            raise AttributeError(name)
        return lambda *_, **__: None


def _is_type(name: str) -> bool:
    return name in resource_types()


@dataclass
class Answer:
    """Everything that a caller gets to see."""

    pages: list[Any] = field(default_factory=list)
    error: tuple[str, str] | None = None

    @property
    def refused(self) -> bool:
        return self.error is not None and self.error[0] == "access.denied"


def _paged(page_of: Callable[[str], Any]) -> Answer:
    told, page = Answer(), ""
    try:
        for _ in range(MOST_PAGES):
            found = page_of(page)
            shown = [(one["search"]["mode"], dump_as_given(one["resource"])) for one in entries(found, "")]
            page = found.result.next
            told.pages.append((found.result.total, shown, bool(page)))
            if not page:
                return told
        raise AssertionError("it never ends")
    except CarelakeError as error:
        told.error = (error.code, error.message)
    return told


@dataclass
class Worlds:
    """The record, one that holds nothing, and those that never held what somebody may not see."""

    folder: Path
    held: dict[str, list[Resource]]
    made: dict[Any, World] = field(default_factory=dict)

    def world(self, key: Any, held: Callable[[], dict[str, list[Resource]]]) -> World:
        if key not in self.made:
            folder = self.folder / str(len(self.made))
            folder.mkdir()
            self.made[key] = World(folder, held())
        return self.made[key]

    @property
    def whole(self) -> World:
        return self.world("whole", lambda: self.held)

    @property
    def empty(self) -> World:
        return self.world("empty", dict)

    def without(self, account: str, denied: frozenset[str]) -> World:
        denied &= {one["resourceType"] for one in self.held[account]}

        def left() -> dict[str, list[Resource]]:
            return {account: [one for one in self.held[account] if one["resourceType"] not in denied]}

        return self.world((account, denied), left)

    def only(self, account: str, patient: str) -> World:
        return self.world(
            (account, patient), lambda: {account: [one for one in self.held[account] if owner(one) == patient]}
        )

    def covered(self, account: str, narrowed: tuple[str, ...], denied: frozenset[str]) -> World:
        """Of what is left without some types, what the scopes of a token cover."""
        denied &= {one["resourceType"] for one in self.held[account]}

        def left() -> dict[str, list[Resource]]:
            held = self.held[account]
            return {account: [one for one in held if one["resourceType"] not in denied and is_covered(narrowed, one)]}

        return self.world((account, narrowed, denied), left)

    def close(self) -> None:
        for world in self.made.values():
            world.vault.close()


def _all_but(*grants: str) -> tuple[str, ...]:
    """All of every type, but of those that these grants are for."""
    named = {read_grant(one).type for one in grants}
    return (*grants, *(f"/{kind}.rs" for kind in sorted(resource_types() - named)))


NARROWED: list[tuple[str, ...]] = [
    _all_but("/Observation.s?code=a", "/Observation.s?status=amended", "p1/Observation.s"),
    _all_but("/Observation.s?code=urn:s|b", "p1/Encounter.s", "/Encounter.s?status=finished"),
    _all_but("p2/Patient.s", "p1/Patient.s?gender=male", "/Condition.s?code=c&encounter=Encounter/e1,Encounter/e2"),
    _all_but("/Patient.s?_id=p1,p3", "/Practitioner.s?gender=female", "/Observation.s?performer=Practitioner/p1"),
    ("/*.rs",),
    ("p1/*.s",),
    ("/*.r", "/Observation.s?code=urn:s|a"),
    ("/Observation.s?code=a", "/Observation.s?status=amended", "/Patient.s", "/Encounter.cruds", "/Practitioner.s"),
    ("p1/Observation.s?code=a%2Cb&status=final", "/Practitioner.s", "/Organization.s", "p1/Patient.s", "/List.s"),
    ("p2/Observation.rs", "p2/Patient.rs", "p2/Encounter.rs", "p2/Condition.rs?encounter=Encounter/e1"),
    ("p1/*.s", "/Observation.s?date=ge2023", "p3/Patient.s"),
    ("/Patient.cud", "/Observation.r"),
    (),
]
"""What the scopes of a token leave, as a principal carries it."""


def is_covered(narrowed: tuple[str, ...], one: Resource, letter: str = "s") -> bool:
    """Whether an interaction by these grants shows a resource: read off the resource itself."""
    return any(_covers(read_grant(text), one, letter) for text in narrowed)


def _covers(grant: Any, one: Resource, letter: str) -> bool:
    if letter not in grant.letters or grant.type not in ("*", one["resourceType"]):
        return False
    if grant.patient and owner(one) != grant.patient:
        return False
    pairs = [pair.partition("=")[::2] for pair in unquote(grant.query).split("&") if pair]
    return all(_MEETS[name](one, value) for name, value in pairs)


def _is_coded(one: Resource, value: str) -> bool:
    return one["code"]["coding"][0]["code"] in [each.rpartition("|")[2] for each in value.split(",")]


_MEETS: dict[str, Callable[[Resource, str], bool]] = {
    "code": _is_coded,
    "status": lambda one, value: one["status"] == value,
    "gender": lambda one, value: one["gender"] == value,
    "_id": lambda one, value: one["id"] in value.split(","),
    "encounter": lambda one, value: one.get("encounter", {}).get("reference") in value.split(","),
    "performer": lambda one, value: {"reference": value} in one.get("performer", []),
    "date": lambda one, value: one["effectiveDateTime"][:4] >= value.removeprefix("ge"),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    made = Worlds(tmp_path_factory.mktemp("worlds"), {"production": holdings(1), "research": holdings(2)})
    yield made
    made.close()


# -- the questions ---------------------------------------------------------------------------------------------------

_PERSON = ["family=Ab", "gender=male", "gender:not=female", "name:contains=b", "birthdate=ge1960", "_id=p1,p2,o1"]
TESTS: dict[str, list[str]] = {
    "Patient": [
        *_PERSON,
        "general-practitioner:Practitioner.family=L",
        "general-practitioner.name=Lee",
        "organization.name=North",
        "organization:missing=true",
        "_has:Observation:patient:code=a",
        "_has:Observation:subject:encounter.status=finished",
        "_has:Condition:patient:code=urn:s|b",
        "_has:Encounter:subject:_has:Observation:encounter:code=a",
        "_has:Observation:patient:performer:Practitioner.family=Lee",
        "_list=l1",
    ],
    "Observation": [
        "code=a",
        "code=urn:s|",
        "code:text=word",
        "code:not=a",
        "code:in=http://v.test/one",
        "code:not-in=http://v.test/one",
        "subject=Patient/p1",
        "patient=p2",
        "subject:missing=true",
        "date=ge2022",
        "value-quantity=gt4",
        "code-value-quantity=a$gt3",
        "status=final",
        "subject:Patient.family=Ab",
        "patient.gender=male",
        "subject.name=A",
        "subject:Patient.organization.name=North",
        "encounter.service-provider.name=South",
        "encounter:Encounter.subject:Patient.gender=female",
        "performer:Practitioner.gender=male",
        "has-member.code=b",
        "_has:Observation:has-member:code=c",
        "_id=o1,o2,o3,o4",
        "_lastUpdated=ge2020",
        "_list=l1",
    ],
    "Encounter": [
        "status=finished",
        "class=AMB",
        "subject:Patient.birthdate=lt1970",
        "service-provider.name=North",
        "_has:Observation:encounter:code=a",
        "_has:Condition:encounter:code=b",
        "_has:Condition:encounter:subject:Patient.family=A",
        "date=ge2021",
    ],
    "Condition": [
        "code=a",
        "subject:Patient.gender=male",
        "encounter.status=finished",
        "patient=p1",
        "code:text=word a",
    ],
    "Practitioner": ["family=L", "_has:Patient:general-practitioner:family=A", "_has:Observation:performer:code=a"],
    "Organization": [
        "name=North",
        "_has:Patient:organization:_id=p1",
        "_has:Encounter:service-provider:status=finished",
    ],
    "DocumentReference": ["patient=p1", "subject:Patient.family=A", "relatesto.patient=p2"],
    "List": ["status=current", "item=Patient/p1", "item:Patient.family=A"],
    "ValueSet": ["url=http://v.test/one"],
}
BESIDE: dict[str, list[str]] = {
    "Patient": [
        "_include=Patient:general-practitioner",
        "_include=Patient:organization",
        "_revinclude=Observation:subject",
        "_revinclude=Condition:patient",
        "_revinclude=Encounter:subject&_revinclude:iterate=Observation:encounter",
        "_revinclude=*",
        "_include=*",
        "_sort=family",
        "_sort=-birthdate,_id",
        "_sort=organization",
    ],
    "Observation": [
        "_include=Observation:subject",
        "_include=Observation:subject:Patient",
        "_include=Observation:encounter&_include:iterate=Encounter:service-provider",
        "_include=Observation:has-member&_include:iterate=Observation:has-member",
        "_include=Observation:subject:Patient&_include:iterate=Patient:general-practitioner:Practitioner",
        "_include=Observation:*",
        "_revinclude=Observation:has-member",
        "_sort=date",
        "_sort=-value-quantity",
        "_sort=code,-date",
        "_sort=subject",
    ],
    "Encounter": [
        "_include=Encounter:subject:Patient",
        "_revinclude=Observation:encounter",
        "_sort=-date",
        "_sort=status",
    ],
    "Condition": ["_include=Condition:encounter", "_sort=code"],
    "Practitioner": ["_revinclude=Patient:general-practitioner", "_sort=family"],
    "Organization": ["_revinclude=Patient:organization", "_sort=-name"],
    "DocumentReference": ["_include=DocumentReference:relatesto", "_include=DocumentReference:patient"],
    "List": ["_include=List:item", "_include=List:item:Patient"],
    "ValueSet": ["_sort=url"],
}
ALWAYS = [
    "_count=1",
    "_count=2",
    "_count=3",
    "_total=accurate",
    "_total=estimate",
    "_total=none",
    "_summary=count",
    "_sort=_lastUpdated",
    "_sort=-_id",
]
WRONG = ["colour=red", "code:fuzzy=a", "_include=Patient:colour", "birthdate=soon", "_sort=colour", "_page=x"]


@st.composite
def queries(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(list(TESTS)))
    path = draw(st.sampled_from([kind] * 6 + ["several", "within", "within all"]))
    tests = draw(st.lists(st.sampled_from(TESTS[kind]), max_size=3, unique=True))
    beside = draw(st.lists(st.sampled_from(BESIDE[kind]), max_size=2, unique=True))
    pairs = [*tests, *beside, *draw(st.lists(st.sampled_from(ALWAYS), max_size=2, unique=True))]
    if path == "several":
        other = draw(st.sampled_from(list(TESTS)))
        pairs = [*(one for one in pairs if one in ALWAYS), "_id=p1,o1,o2,e1,c1,d1", f"_type={kind},{other}"]
        path = ""
    elif path == "within":
        path = f"Patient/{draw(st.sampled_from(PATIENTS))}/{kind}"
    elif path == "within all":
        path, pairs = f"Patient/{draw(st.sampled_from(PATIENTS))}/*", [one for one in pairs if one in ALWAYS]
    if draw(st.integers(0, 11)) == 0:
        pairs.append(draw(st.sampled_from(WRONG)))
    return _once(path, pairs)


def _once(path: str, pairs: list[str]) -> str:
    """What may be given once only, once."""
    single, kept = set(), []
    for pair in "&".join(pairs).split("&"):
        name = pair.partition("=")[0]
        if name in ("_sort", "_count", "_total", "_summary"):
            if name in single:
                continue
            single.add(name)
        kept.append(pair)
    return f"{path}?{'&'.join(one for one in kept if one)}"


def checks(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=examples < 1000,
        phases=[Phase.generate],  # the query that fails is short enough, and each try takes two searches
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# -- the tests -------------------------------------------------------------------------------------------------------


def scoped_alike(worlds: Worlds, account: str, patient: str, query: str) -> None:
    """A permit for one patient's compartment, and a record that holds nothing else."""
    seen = worlds.whole.answer(query, account, "account", f"patient:{patient}")
    assert seen == worlds.only(account, patient).answer(query, account), query
    event("error" if seen.error else "answered" if seen.pages[0][1] else "nothing")


def decided_alike(worlds: Worlds, who: Principal, account: str, purpose: str, query: str) -> None:
    """A principal, and a record that holds only types that are allowed to it."""
    policies = worlds.whole.gate.policies
    denied = frozenset(
        kind
        for kind in resource_types()
        if not policies.decide(Request(who, "record:search", account, purpose, type=kind)).allowed
    )
    seen = worlds.whole.answer_to(who, account, purpose, query)
    if seen.refused:
        assert denied, query
        assert seen.pages == []
        assert seen == worlds.empty.answer_to(who, account, purpose, query), query
        event("refused")
    else:
        assert len(denied) < len(resource_types()), query
        assert seen == worlds.without(account, denied).answer(query, account), query
        event("error" if seen.error else "answered" if seen.pages[0][1] else "nothing")


def narrowed_alike(worlds: Worlds, who: Principal, narrowed: tuple[str, ...], query: str) -> None:
    """A token with scopes, and a record that holds only what they cover of what policy allows."""
    policies, grants = worlds.whole.gate.policies, [read_grant(one) for one in narrowed]
    denied = frozenset(
        kind
        for kind in resource_types()
        if not policies.decide(Request(who, "record:search", "production", "TREAT", type=kind)).allowed
        or not any(one.serves(("s",), kind) for one in grants)
    )
    bearer = replace(who, narrowed=narrowed)
    seen = worlds.whole.answer_to(bearer, "production", "TREAT", query)
    if seen.refused:
        assert denied, query
        assert seen.pages == []
        assert seen == worlds.empty.answer_to(bearer, "production", "TREAT", query), query
        event("refused")
    else:
        assert any("s" in one.letters for one in grants), query
        assert seen == worlds.covered("production", narrowed, denied).answer(query, "production"), query
        event("error" if seen.error else "answered" if seen.pages[0][1] else "nothing")


@checks(250)
@given(
    st.sampled_from([*PRINCIPALS[:1] * 4, *PRINCIPALS[1:3]]),
    st.sampled_from([*NARROWED[:4] * 4, *NARROWED]),
    queries(),
)
def test_what_a_token_does_not_cover_might_as_well_not_be_there(
    worlds: Worlds, who: Principal, narrowed: tuple[str, ...], query: str
) -> None:
    narrowed_alike(worlds, who, narrowed, query)


def test_each_resource_is_read_by_whose_token_covers_it(worlds: Worlds) -> None:
    """One by one, by its version, in its history, and among all that a patient has."""
    resources, held = worlds.whole.resources, worlds.held["production"]
    for narrowed in NARROWED:
        carried = tuple(one.replace(".s", ".r") for one in narrowed)
        scope = tuple(f"only:{one}" for one in carried) or ("only:/Basic.r",)
        permit = worlds.whole.permit("production", "account", *scope, action="record:read")
        for one in held:
            named = (permit, one["resourceType"], one["id"])
            ways = (partial(resources.read, *named), partial(resources.vread, *named, "1"))
            found = {_there(way) for way in (*ways, partial(resources.history, *named))}
            assert found == {is_covered(carried, one, "r")}, (narrowed, *named[1:])
        for patient in PATIENTS:
            seen = {(one["resourceType"], one["id"]) for _, one in resources.resources_of(permit, patient)}
            covered = (one for one in held if owner(one) == patient and is_covered(carried, one, "r"))
            assert seen == {(one["resourceType"], one["id"]) for one in covered}, (narrowed, patient)


def _there(way: Callable[[], Any]) -> bool:
    try:
        way()
    except NotFound:
        return False
    return True


@checks(250)
@given(st.sampled_from(["production", "research"]), st.sampled_from(PATIENTS), queries())
def test_a_patient_scope_is_a_record_of_that_patient(worlds: Worlds, account: str, patient: str, query: str) -> None:
    scoped_alike(worlds, account, patient, query)


@checks(350)
@given(st.sampled_from(PRINCIPALS), st.sampled_from(ACCOUNTS), st.sampled_from(PURPOSES), queries())
def test_what_is_denied_might_as_well_not_be_there(
    worlds: Worlds, who: Principal, account: str, purpose: str, query: str
) -> None:
    decided_alike(worlds, who, account, purpose, query)


@checks(300)
@given(st.sampled_from(["production", "research"]), queries())
def test_an_account_is_a_record_of_its_own(worlds: Worlds, account: str, query: str) -> None:
    assert worlds.whole.answer(query, account) == worlds.without(account, frozenset()).answer(query, account), query


@pytest.mark.soak
@checks(6000)
@given(st.sampled_from(["production", "research"]), st.sampled_from(PATIENTS), queries())
def test_a_patient_scope_for_long(worlds: Worlds, account: str, patient: str, query: str) -> None:
    scoped_alike(worlds, account, patient, query)


@pytest.mark.soak
@checks(6000)
@given(st.sampled_from(PRINCIPALS), st.sampled_from(ACCOUNTS), st.sampled_from(PURPOSES), queries())
def test_denial_for_long(worlds: Worlds, who: Principal, account: str, purpose: str, query: str) -> None:
    decided_alike(worlds, who, account, purpose, query)


@pytest.mark.soak
@checks(6000)
@given(st.sampled_from(PRINCIPALS[:3]), st.sampled_from(NARROWED), queries())
def test_tokens_for_long(worlds: Worlds, who: Principal, narrowed: tuple[str, ...], query: str) -> None:
    narrowed_alike(worlds, who, narrowed, query)


# -- the tests' own reach --------------------------------------------------------------------------------------------

_CORA, _APPS = PRINCIPALS[1], PRINCIPALS[2]


@pytest.mark.parametrize(
    ("who", "purpose", "query"),
    [
        (_CORA, "TREAT", "Condition"),
        (_CORA, "TREAT", "Patient?_has:Condition:patient:code=a"),
        (_CORA, "TREAT", "Practitioner?_has:Patient:general-practitioner:_has:Condition:subject:code=a"),
        (_CORA, "TREAT", "Patient?_revinclude=Condition:patient"),
        (_CORA, "TREAT", "Patient?_revinclude=*"),
        (_CORA, "TREAT", "Patient/p1/*?_count=1"),
        (_CORA, "TREAT", "?_id=p1"),
        (_CORA, "TREAT", "?_type=Patient,Condition"),
        (_APPS, "TREAT", "Patient?general-practitioner:Practitioner.name=a"),
        (_APPS, "TREAT", "Observation?subject:Patient.general-practitioner:Practitioner.name=a"),
        (_APPS, "TREAT", "Observation?_include=Observation:performer"),
        (_APPS, "TREAT", "Observation?_include=Observation:*"),
        (_APPS, "TREAT", "Observation?_include=Observation:subject:Patient&_include:iterate=Patient:organization"),
        (_APPS, "HOPERAT", "Patient?_list=l1"),
        (_APPS, "HOPERAT", "Condition?code:in=http://v.test/one"),
        (_APPS, "HOPERAT", "Condition?code:not-in=http://v.test/one"),
    ],
)
def test_what_touches_a_denied_type_is_refused(worlds: Worlds, who: Principal, purpose: str, query: str) -> None:
    seen = worlds.whole.answer_to(who, "production", purpose, query)
    assert seen.refused, (query, seen)
    assert seen == worlds.empty.answer_to(who, "production", purpose, query)


@pytest.mark.parametrize(
    ("who", "query"),
    [
        (_CORA, "Patient?_has:Observation:patient:code=a,b,c"),
        (_CORA, "Observation?_include=Observation:subject:Patient&_include:iterate=Patient:organization"),
        (_CORA, "?_type=Patient,Observation&_id=p1,o1"),
        (_APPS, "Observation?subject:Patient.gender=male,female&_include=Observation:subject:Patient"),
        (_APPS, "Observation?code:in=http://v.test/one"),
    ],
)
def test_what_touches_none_is_answered(worlds: Worlds, who: Principal, query: str) -> None:
    seen = worlds.whole.answer_to(who, "production", "TREAT", query)
    assert seen.error is None
    assert seen.pages[0][1]
