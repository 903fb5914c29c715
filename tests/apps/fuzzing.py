"""A fuzzer that knows FHIR: valid resources, bundles, patches, queries and headers, and what goes wrong with them.

Everything comes from one seed: request ``n`` of a seed is the same in every run, so a finding is ``(seed, n)``.
"""

from __future__ import annotations

import base64
import copy
import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from carelake.fhir.definitions import resource_types
from carelake.fhir.search import parameters

__all__ = ["CANARY", "SEEDS", "Fuzzer", "Sent"]

CANARY = "Xenoqueluvia"
"""A name in every resource: no log, metric or act may hold it."""

_CODE = {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": CANARY}], "text": CANARY}

SEEDS: tuple[dict[str, Any], ...] = (
    {
        "resourceType": "Patient",
        "id": "p1",
        "meta": {"tag": [{"system": "http://t", "code": "x"}], "profile": ["http://p"]},
        "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'},
        "extension": [{"url": "http://e", "valueDecimal": 1.10}],
        "identifier": [{"system": "http://mrn", "value": "1"}],
        "name": [{"family": CANARY, "given": ["Ada", "B"], "_given": [None, {"id": "x"}]}],
        "telecom": [{"system": "phone", "value": "555-123-4567"}],
        "gender": "female",
        "birthDate": "1980-02-13",
        "address": [{"line": ["1 Main St"], "city": "X", "postalCode": "12345"}],
        "link": [{"other": {"reference": "Patient/p2"}, "type": "seealso"}],
    },
    {"resourceType": "Patient", "id": "p2", "name": [{"family": CANARY}], "active": True},
    {
        "resourceType": "Observation",
        "id": "o1",
        "status": "final",
        "code": _CODE,
        "subject": {"reference": "Patient/p1"},
        "effectivePeriod": {"start": "2024-01-01", "end": "2024-01-02T10:00:00+01:00"},
        "valueQuantity": {"value": 72.50, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
        "component": [{"code": {"text": "part"}, "valueRange": {"low": {"value": 1}, "high": {"value": 2}}}],
        "referenceRange": [{"low": {"value": 1}}],
    },
    {
        "resourceType": "Encounter",
        "id": "e1",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient/p1"},
        "period": {"start": "2024-03-01"},
        "location": [{"location": {"reference": "Location/l1"}}],
    },
    {"resourceType": "Location", "id": "l1", "position": {"longitude": 1.5, "latitude": 2.5}, "name": CANARY},
    {
        "resourceType": "ValueSet",
        "id": "v1",
        "url": "http://v",
        "status": "active",
        "compose": {
            "include": [{"system": "http://c", "filter": [{"property": "concept", "op": "is-a", "value": "a"}]}]
        },
    },
    {
        "resourceType": "CodeSystem",
        "id": "c1",
        "url": "http://c",
        "status": "active",
        "content": "complete",
        "hierarchyMeaning": "is-a",
        "concept": [{"code": "a", "concept": [{"code": "b", "display": CANARY}]}],
    },
    {
        "resourceType": "ConceptMap",
        "id": "m1",
        "url": "http://m",
        "status": "active",
        "sourceUri": "http://v",
        "group": [
            {
                "source": "http://c",
                "target": "http://d",
                "element": [{"code": "a", "target": [{"code": "z", "equivalence": "equal"}]}],
            }
        ],
    },
    {
        "resourceType": "Questionnaire",
        "id": "q1",
        "status": "active",
        "item": [{"linkId": "1", "type": "group", "item": [{"linkId": "2", "type": "string", "text": CANARY}]}],
    },
    {
        "resourceType": "MedicationRequest",
        "id": "r1",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/p1"},
        "contained": [{"resourceType": "Medication", "id": "m", "code": _CODE}],
        "medicationReference": {"reference": "#m"},
        "dosageInstruction": [{"timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}],
    },
    {
        "resourceType": "List",
        "id": "li",
        "status": "current",
        "mode": "working",
        "entry": [{"item": {"reference": "Patient/p1"}}],
    },
    {
        "resourceType": "Group",
        "id": "g1",
        "type": "person",
        "actual": True,
        "member": [{"entity": {"reference": "Patient/p1"}}],
    },
    {"resourceType": "Binary", "id": "b1", "contentType": "text/plain", "data": "aGVsbG8="},
    {
        "resourceType": "SearchParameter",
        "id": "s1",
        "url": "http://s",
        "name": "s",
        "status": "active",
        "description": "x",
        "code": "own",
        "base": ["Patient"],
        "type": "string",
        "expression": "Patient.name.family",
    },
)

_DEEP = 300
_WORDS: tuple[str, ...] = (
    "",
    " ",
    "a" * 5000,
    "\x00",
    "\ud800",
    "\u202e\ufeff",
    "𝕏" * 50,
    "'; DROP TABLE resource;--",
    "../../etc/passwd",
    "(a+)+$" + "a" * 60 + "!",
    "{{7*7}}",
    "%00%ff",
    "http://[::1",
    "urn:uuid:x",
    "Patient/",
    "Patient/p1/_history/0",
    "#",
    "true",
    "null",
    "-1",
    "9999-99-99",
    "0000-00-00T99:99:99Z",
    "2024-02-30",
    "\r\nX-Injected: 1",
    CANARY,
)
_NUMBERS: tuple[Any, ...] = (0, -1, 10**18, 10**400, -(10**400), 1e308, 5e-324, 2**63, 2**31, 0.1, True)
_RAW_NUMBERS = ("1e400", "-1e-4000", "1" + "0" * 5000, "0." + "0" * 5000 + "1", "1.0E+99999", "-0", "1e999999999")
_PATHS = (
    "(",
    "1/0",
    "Patient.name.where(use='x')",
    "Patient.name.repeat(given)",
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('(a+)+$')",
    "%resource.descendants()",
    "Patient." + "name." * 300 + "given",
    "(" * 500 + "1" + ")" * 500,
)
_MODIFIERS = (
    "",
    ":missing",
    ":exact",
    ":contains",
    ":not",
    ":text",
    ":in",
    ":not-in",
    ":above",
    ":below",
    ":of-type",
    ":identifier",
    ":Patient",
    ":nothing",
    "::",
    ".name",
    ":Patient.name",
)
_VALUES = (
    "a",
    "p1",
    "Patient/p1",
    "http://loinc.org|8867-4",
    "|",
    "|||",
    "a|",
    "|a",
    "$",
    "a$b",
    "a$b$c$d",
    "2024",
    "gt2024-01-01",
    "lt",
    "ap2024-01-01T00:00:00.123456789Z",
    "5.4|http://unitsofmeasure.org|mg",
    "ne1e5",
    "1e400",
    "1e-400",
    "9" * 400,
    "sa0",
    "1|1|5|km",
    "91|181",
    "nan",
    "inf",
    ",",
    ",,,,",
    "\\",
    "\\,",
    "a\\|b",
    "*",
    "true",
    "http://v",
    "http://hl7.org/fhir/ValueSet/administrative-gender",
    "-date",
    "Patient:link",
    "*:*",
    "Observation:subject:Patient",
    *_WORDS,
)
_FIT = {
    "date": (
        "2024",
        "ge2024-01-01",
        "sa2024-01-01T10:00:00Z",
        "ap1980-02-13",
        "ne2024,lt1900",
        "eb0001",
        "9999-12-31",
    ),
    "number": ("1", "gt1.50", "ap1e3", "ne0,1", "-0.0", "1e-30"),
    "quantity": ("72.5", "gt1|http://unitsofmeasure.org|/min", "5||mg", "ap72.50||/min", "le1e300|http://x|"),
    "reference": ("Patient/p1", "p1", "http://a/Patient/p1", "Patient/p1,Group/g1", "urn:uuid:x", "Location/l1"),
    "string": (CANARY, "Ad", "1 Main", "555", "é\u0301", "a\\,b", "x" * 900),
    "token": ("http://t|x", "|x", "x", "http://mrn|1,http://mrn|2", "http://loinc.org|", "female", "true"),
    "uri": ("http://v", "http://v|1", "urn:oid:1.2.3", "http://e/"),
}
_NAMES = (
    "_id",
    "_lastUpdated",
    "_count",
    "_sort",
    "_include",
    "_revinclude",
    "_include:iterate",
    "_elements",
    "_summary",
    "_total",
    "_has:Observation:patient:code",
    "_has:" * 40 + "x",
    "_content",
    "_text",
    "_list",
    "_type",
    "_page",
    "_format",
    "_pretty",
    "_contained",
    "_filter",
    "_query",
    "subject:Patient.name",
    "subject.name.name.name",
    "max",
    "start",
    "end",
    "_since",
    "_at",
    "_outputFormat",
    "_typeFilter",
    "url",
    "code",
    "system",
    "profile",
    "mode",
)
_HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Accept", ("application/fhir+json", "*/*", "text/html", "application/fhir+xml", ";;;q=", "a" * 3000, "*/*;q=0")),
    ("Prefer", ("return=minimal", "return=OperationOutcome", "handling=lenient", "respond-async", "=;,=", "return")),
    ("If-Match", ('W/"1"', '"1"', "1", "*", 'W/"', "W/", "99999999999999999999", ",,,", '"\x80"')),
    ("If-None-Match", ("*", 'W/"1"', "x", "")),
    ("If-None-Exist", ("identifier=http://mrn|1", "_id=", "name=a", "?", "&&&", "%%%", "identifier=" + "a" * 3000)),
    ("If-Modified-Since", ("Sat, 01 Jan 2000 00:00:00 GMT", "yesterday", "0", "Sat, 99 Jan 99999 00:00:00 GMT")),
    (
        "Content-Type",
        (
            "application/json",
            "text/plain",
            "application/fhir+json; fhirVersion=5.0",
            "application/json-patch+json",
            "",
            "x/y+json",
            "multipart/form-data",
        ),
    ),
    ("Content-Encoding", ("gzip", "deflate", "br", "identity", "gzip, gzip", "nonsense")),
    ("X-Request-Id", ("x" * 3000, "\t", "é")),
    ("Host", ("", "evil.example", "a b", "[::1]:99999999", "x" * 500)),
    ("X-Forwarded-Host", ("evil.example",)),
    ("Range", ("bytes=0-", "bytes=9-1")),
    ("Authorization", ("Bearer x.y.z", "Basic eDp5", "AWS4-HMAC-SHA256 Credential=x", "Bearer " + "a" * 9000)),
)


@dataclass
class Sent:
    """One request. ``headers`` go over the ordinary ones; an empty value takes one away."""

    method: str
    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""


class Fuzzer:
    """Makes requests; `request` is a function of the seed and the number alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kinds = sorted(resource_types())

    def request(self, number: int) -> Sent:
        """The request of a number."""
        rng = Random(f"{self._seed}:{number}")
        makers: Sequence[tuple[int, Callable[[Random], Sent]]] = (
            (5, self._create),
            (6, self._update),
            (5, self._search),
            (5, self._patch),
            (5, self._bundle),
            (5, self._operation),
            (2, self._read),
            (1, self._stray),
        )
        (make,) = rng.choices([one for _, one in makers], [weight for weight, _ in makers])
        sent = make(rng)
        if rng.random() < 0.2:
            self._mutate_headers(rng, sent)
        return sent

    # -- what is sent ---------------------------------------------------------------------------------------------

    def _create(self, rng: Random) -> Sent:
        resource = self._resource(rng)
        kind = str(resource.get("resourceType")) if rng.random() < 0.9 else rng.choice(self._kinds)
        query = self._query(rng, kind) if rng.random() < 0.1 else ""
        return self._json(rng, "POST", f"/{_segment(kind)}", resource, query)

    def _update(self, rng: Random) -> Sent:
        resource = self._resource(rng)
        kind, key = str(resource.get("resourceType")), str(resource.get("id", "x"))
        if rng.random() < 0.1:
            return self._json(rng, "PUT", f"/{_segment(kind)}", resource, self._query(rng, kind))
        return self._json(rng, "PUT", f"/{_segment(kind)}/{_segment(key)}", resource)

    def _search(self, rng: Random) -> Sent:
        kind = rng.choice([one["resourceType"] for one in SEEDS]) if rng.random() < 0.8 else rng.choice(self._kinds)
        query = self._query(rng, kind, own=0.9)
        path = rng.choice((f"/{kind}", f"/{kind}", f"/{kind}", "", f"/Patient/p1/{kind}", "/Patient/p1/*"))
        if rng.random() < 0.3:
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return Sent("POST", f"{path}/_search", query.encode(), form)
        return Sent(rng.choice(("GET", "GET", "GET", "HEAD", "DELETE")), path, query=query)

    def _patch(self, rng: Random) -> Sent:
        seed = rng.choice(SEEDS)
        make = rng.choice((self._json_patch, self._path_patch, self._merge_patch))
        media, change = make(rng, seed)
        if rng.random() < 0.3:
            change = self._mutated(rng, change)
        sent = self._json(rng, "PATCH", f"/{seed['resourceType']}/{seed['id']}", change)
        sent.headers["Content-Type"] = media
        return sent

    def _json_patch(self, rng: Random, seed: dict[str, Any]) -> tuple[str, Any]:
        pointers = [*_pointers(seed), "/language", "/name/-", "/name/99", "", "/", "/a~2", "/id", "/resourceType"]
        operations = []
        for _ in range(rng.randint(1, 3)):
            op = rng.choice(("add", "remove", "replace", "move", "copy", "test", "explode"))
            said = {"op": op, "path": rng.choice(pointers)}
            if op in ("move", "copy"):
                said["from"] = rng.choice(pointers)
            elif op != "remove":
                said["value"] = rng.choice(("en", self._value(rng)))
            operations.append(said)
        return "application/json-patch+json", operations

    def _path_patch(self, rng: Random, seed: dict[str, Any]) -> tuple[str, Any]:
        kind = seed["resourceType"]
        elements = [name for name in seed if name not in ("resourceType", "id")]
        path = rng.choice((kind, f"{kind}.{rng.choice(elements)}", f"{kind}.{rng.choice(elements)}[0]", *_PATHS))
        type_ = rng.choice(("add", "insert", "delete", "replace", "move", "explode"))
        parts: list[dict[str, Any]] = [{"name": "type", "valueCode": type_}, {"name": "path", "valueString": path}]
        if type_ in ("add", "explode"):
            parts.append({"name": "name", "valueString": rng.choice(("language", *elements, "x", ""))})
        if type_ not in ("delete", "move"):
            key = rng.choice(("valueString", "valueCode", "valueHumanName", "part"))
            parts.append({"name": "value", key: rng.choice(("en", self._value(rng)))})
        for name in {"insert": ("index",), "move": ("source", "destination")}.get(type_, ()):
            parts.append({"name": name, "valueInteger": rng.choice((0, 0, 1, -1, 10**9))})
        operation = {"name": "operation", "part": parts}
        return "application/fhir+json", {
            "resourceType": "Parameters",
            "parameter": [operation] * rng.choice((1, 1, 2)),
        }

    def _merge_patch(self, rng: Random, seed: dict[str, Any]) -> tuple[str, Any]:
        name = rng.choice(("language", "id", "x", *seed))
        return "application/merge-patch+json", {name: rng.choice((None, "en", self._value(rng)))}

    def _bundle(self, rng: Random) -> Sent:
        entries = [self._entry(rng, number) for number in range(rng.choice((0, 1, 2, 3, 8)))]
        kinds = ("transaction", "transaction", "transaction", "batch", "batch", "batch", "collection", "x")
        bundle = {"resourceType": "Bundle", "type": rng.choice(kinds), "entry": entries}
        if rng.random() < 0.2:
            bundle = self._mutated(rng, bundle)
        return self._json(rng, "POST", rng.choice(("", "", "/", "/Bundle")), bundle)

    def _entry(self, rng: Random, number: int) -> dict[str, Any]:
        resource = self._resource(rng) if rng.random() < 0.2 else copy.deepcopy(rng.choice(SEEDS))
        kind, key = resource.get("resourceType"), resource.get("id")
        method = rng.choice(("POST", "PUT", "GET", "DELETE", "PATCH", "HEAD"))
        urls = {"POST": (f"{kind}",), "GET": (f"{kind}/{key}", f"{kind}?_id={key}", f"{kind}/{key}/_history")}
        url = rng.choice(urls.get(method, (f"{kind}/{key}", f"{kind}?_id={key}")))
        if rng.random() < 0.2:
            query = self._query(rng, "Patient")
            url = rng.choice(
                (
                    f"{kind}?{query}",
                    "",
                    "$meta",
                    f"{kind}/{key}/$everything",
                    "metadata",
                    "http://evil/Patient/1",
                    rng.choice(_WORDS),
                )
            )
        entry: dict[str, Any] = {"request": {"method": method, "url": url}}
        if method == "PATCH":
            media, change = rng.choice((self._json_patch, self._path_patch))(rng, rng.choice(SEEDS))
            data = base64.b64encode(json.dumps(change).encode()).decode()
            binary = {"resourceType": "Binary", "contentType": media, "data": data}
            entry["resource"] = change if media == "application/fhir+json" else binary
        elif method in ("POST", "PUT") or rng.random() < 0.1:
            entry["resource"] = resource
        if method == "POST":
            entry["fullUrl"] = rng.choice(
                (f"urn:uuid:9c1b6f40-6d2b-4b5c-9a10-3f6f4a5d000{number}", "urn:oid:1.2.3", "x")
            )
        if rng.random() < 0.2:
            name = rng.choice(("ifMatch", "ifNoneMatch", "ifNoneExist", "ifModifiedSince"))
            entry["request"][name] = rng.choice(('W/"1"', "*", "_id=p1", *_WORDS))
        return entry

    def _operation(self, rng: Random) -> Sent:
        names = (
            "Patient/p1/$everything",
            "Encounter/e1/$everything",
            "Observation/$lastn",
            "Patient/$match",
            "Patient/p1/$meta",
            "Patient/p1/$meta-add",
            "Patient/p1/$meta-delete",
            "Patient/$meta",
            "Patient/$validate",
            "Patient/p1/$validate",
            "ValueSet/$expand",
            "ValueSet/v1/$expand",
            "ValueSet/$validate-code",
            "CodeSystem/$lookup",
            "CodeSystem/$subsumes",
            "CodeSystem/$validate-code",
            "ConceptMap/$translate",
            "ConceptMap/m1/$translate",
            "Patient/$nothing",
            "$nothing",
            "$export/nothing",
        )
        path = f"/{rng.choice(names)}"
        if rng.random() < 0.4:
            return Sent("GET", path, query=self._query(rng, "Observation" if "lastn" in path else "Patient"))
        said = (
            "resource",
            "meta",
            "count",
            "onlyCertainMatches",
            "url",
            "code",
            "system",
            "coding",
            "valueSet",
            "codeA",
            "filter",
            "offset",
            "max",
            "_count",
            "start",
            "mode",
            "profile",
            "property",
            "context",
        )
        typed: tuple[tuple[str, Any], ...] = (
            ("valueString", "a"),
            ("valueUri", "http://v"),
            ("valueCode", "a"),
            ("valueInteger", 1),
            ("valueBoolean", True),
            ("valueDate", "2024-01-01"),
            ("valueCoding", {"system": "http://c", "code": "a"}),
            ("valueCodeableConcept", _CODE),
            ("valueMeta", {"tag": [{"code": "x"}]}),
            ("resource", copy.deepcopy(rng.choice(SEEDS))),
        )
        listed = [{"name": rng.choice(said), **dict([rng.choice(typed)])} for _ in range(rng.randint(0, 4))]
        body: Any = {"resourceType": "Parameters", **({"parameter": listed} if listed else {})}
        if rng.random() < 0.2:
            body = copy.deepcopy(rng.choice(SEEDS))
        if rng.random() < 0.5:
            body = self._mutated(rng, body)
        return self._json(rng, "POST", path, body)

    def _read(self, rng: Random) -> Sent:
        seed = rng.choice(SEEDS)
        base = f"/{seed['resourceType']}/{seed['id']}"
        tails = (
            "",
            "/_history",
            "/_history/1",
            "/_history/0",
            "/_history/99999999999",
            "/_history/x",
            "/$x",
            "/x/y/z",
        )
        query = self._query(rng, "Patient") if rng.random() < 0.3 else ""
        methods = ("GET", "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "TRACE")
        return Sent(rng.choice(methods), base + rng.choice(tails), query=query)

    def _stray(self, rng: Random) -> Sent:
        parts = [_segment(rng.choice((*_WORDS, *self._kinds[:5]))) for _ in range(rng.randint(1, 5))]
        return Sent(
            rng.choice(("GET", "POST", "PUT", "DELETE")), "/" + "/".join(parts), query=self._query(rng, "Patient")
        )

    # -- what goes wrong ------------------------------------------------------------------------------------------

    def _resource(self, rng: Random) -> dict[str, Any]:
        seed = copy.deepcopy(rng.choice(SEEDS))
        return self._mutated(rng, seed) if rng.random() < 0.6 else seed

    def _mutated(self, rng: Random, value: Any) -> Any:
        root = {"root": copy.deepcopy(value)}
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            places = list(_places(root))
            holder, key = rng.choice(places)
            how = rng.random()
            if how < 0.15:
                if holder is not root:
                    del holder[key]
            elif how < 0.25:
                other, name = rng.choice(places)
                holder[key] = copy.deepcopy(other[name])
            elif how < 0.35 and isinstance(holder[key], dict):
                names = (
                    "_extra",
                    "resourceType",
                    "extension",
                    "id",
                    "valueString",
                    "contained",
                    "reference",
                    "_id",
                    "é",
                )
                holder[key][rng.choice(names)] = self._value(rng)
            elif how < 0.45 and isinstance(holder[key], list):
                holder[key] = holder[key] * rng.choice((2, 50))
            elif how < 0.5 and isinstance(holder, dict) and holder is not root:
                holder[rng.choice(("_" + str(key), str(key) + "x", str(key).upper()))] = holder.pop(key)
            else:
                holder[key] = self._value(rng)
        found = root["root"]
        return (
            found if isinstance(value, list) or isinstance(found, dict) else {"resourceType": "Patient", "x": found}
        )

    def _value(self, rng: Random) -> Any:
        how = rng.random()
        if how < 0.5:
            return rng.choice(_WORDS)
        if how < 0.7:
            return rng.choice(_NUMBERS)
        if how < 0.75:
            return _nested(rng.choice((3, _DEEP)), as_list=rng.random() < 0.5)
        made: tuple[Any, ...] = (
            None,
            [],
            {},
            [None],
            [[]],
            {"reference": "Patient/p1"},
            {"reference": "#"},
            [{}],
            {"resourceType": "Patient"},
        )
        return copy.deepcopy(rng.choice(made))

    def _query(self, rng: Random, kind: str, own: float = 0.6) -> str:
        codes = sorted(parameters(kind)) if kind in self._kinds else ["_id"]
        pairs = []
        for _ in range(rng.choice((0, 1, 1, 1, 2, 12))):
            name = (
                rng.choice(codes) + (rng.choice(_MODIFIERS) if rng.random() < 0.3 else "")
                if rng.random() < own
                else rng.choice(_NAMES)
            )
            fit = _FIT.get(parameters(kind)[name].type) if name in codes and name != "_id" else None
            if fit is not None and rng.random() < 0.7:
                value = rng.choice(fit)
            else:
                value = ",".join(rng.choice(_VALUES) for _ in range(rng.choice((1, 1, 1, 2, 30))))
            if "\ud800" in value and rng.random() < 0.9:
                continue
            pairs.append(f"{_segment(name)}={_segment(value)}")
        return rng.choice(("&", "&", "&", "&", "&", "&&", ";")).join(pairs)[:20_000]

    def _json(self, rng: Random, method: str, path: str, value: Any, query: str = "") -> Sent:
        text = json.dumps(value)
        how = rng.random()
        if how < 0.03:
            text = text.replace("72.5", rng.choice(_RAW_NUMBERS)).replace("1.1", rng.choice(_RAW_NUMBERS))
        elif how < 0.05:
            text = text.replace('"id"', '"id": "twice", "id"', 1)
        body = text.encode()
        if how > 0.97:
            at = rng.randrange(len(body))
            body = rng.choice((body[:at], body[:at] + b"\xff" + body[at:], b"\xef\xbb\xbf" + body, body + body, b""))
        headers = {"Content-Type": "application/fhir+json"}
        if rng.random() < 0.03:
            body, headers = gzip.compress(body, mtime=0), {**headers, "Content-Encoding": "gzip"}
        return Sent(method, path, body, headers, query)

    def _mutate_headers(self, rng: Random, sent: Sent) -> None:
        for _ in range(rng.choice((1, 1, 2))):
            name, values = rng.choice(_HEADERS)
            sent.headers[name] = rng.choice(values)


def _places(value: Any) -> Any:
    """Every (holder, key) of a tree."""
    todo = [value]
    while todo:
        holder = todo.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            yield holder, key
            if isinstance(holder[key], dict | list):
                todo.append(holder[key])


def _pointers(value: Any) -> list[str]:
    """JSON Pointers of all that is in a resource."""
    found, todo = [], [("", value)]
    while todo:
        at, holder = todo.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            found.append(f"{at}/{key}")
            if isinstance(holder[key], dict | list):
                todo.append((f"{at}/{key}", holder[key]))
    return found


def _nested(depth: int, *, as_list: bool) -> Any:
    found: Any = "x"
    for _ in range(depth):
        found = [found] if as_list else {"extension": found}
    return found


def _segment(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"), safe="$_-.|,:*")
