"""Resources and comparison that the tests of views share."""

from __future__ import annotations

from typing import Any

from carelake.core import canonical

_TEXT = """
[
 {"resourceType":"QuestionnaireResponse","id":"q1","status":"completed","item":[
  {"linkId":"1","text":"Demographics","item":[{"linkId":"1.1","text":"Age","answer":[{"valueInteger":45}]}]},
  {"linkId":"2","text":"History","answer":[{"item":[{"linkId":"2.1","text":"Conditions","answer":[
   {"item":[{"linkId":"2.1.1","text":"Type","answer":[{"valueString":"Type 2"}]}]}]}]}]}]},
 {"resourceType":"QuestionnaireResponse","id":"q2","status":"completed"},
 {"resourceType":"Patient","id":"p1","active":true,"gender":"male","birthDate":"1970-06","deceasedBoolean":false,
  "multipleBirthInteger":2,
  "name":[{"use":"official","family":"Smith","given":["John","James"],"period":{"start":"2010-10-10"}},
          {"use":"nickname","family":"Jones","given":["Jane"]}],
  "telecom":[{"system":"phone","value":"1","rank":1},{"system":"email","value":"a@b"}],
  "contact":[{"name":{"family":"C1"},"telecom":[{"system":"phone"},{"system":"email"}]},
             {"telecom":[{"system":"phone"}]},{"gender":"other"}],
  "address":[{"line":["a","b"],"city":"X","postalCode":"1"}],
  "link":[{"other":{"reference":"Patient/p2"},"type":"refer"},
          {"other":{"reference":"http://x/fhir/RelatedPerson/r1/_history/3"},"type":"seealso"}],
  "managingOrganization":{"reference":"Organization/o1","type":"Organization"},
  "maritalStatus":{"coding":[{"system":"s","code":"M"},{"system":"s2","code":"M2"}],"text":"Married"},
  "_birthDate":{"extension":[{"url":"http://bt","valueDateTime":"1970-06-01T10:00:00Z"}]},
  "extension":[{"url":"http://a","extension":[{"url":"n","valueCoding":{"code":"c1","system":"sy"}},
                                               {"url":"n","valueString":"s"}]},
               {"url":"http://b","valueDecimal":1.5}],
  "meta":{"lastUpdated":"2020-01-01T00:00:00.1+02:00","profile":["http://p1"]}},
 {"resourceType":"Patient","id":"p2","deceasedDateTime":"2020-01-01T10:00:00+02:00",
  "link":[{"other":{"reference":"Patient/p2"},"type":"refer"}]},
 {"resourceType":"Patient","id":"p3","name":[{"given":["Z"]}],"birthDate":"1980","contact":[{}],
  "managingOrganization":{"reference":"#x"}},
 {"resourceType":"Observation","id":"o1","status":"final",
  "code":{"coding":[{"system":"http://loinc.org","code":"1"}]},
  "valueQuantity":{"value":1.0,"unit":"mg","code":"mg","system":"http://unitsofmeasure.org"},
  "effectiveDateTime":"2010-10-10","issued":"2015-02-07T13:28:17.239+02:00","subject":{"reference":"Patient/p1"},
  "component":[{"code":{"text":"a"},"valueQuantity":{"value":1.250,"code":"u"}},
               {"code":{"text":"b"},"valueString":"t"},{"code":{"text":"c"},"valueQuantity":{"value":3}}]},
 {"resourceType":"Observation","id":"o2","status":"final","code":{"text":"x"},"valueTime":"12:34:00",
  "effectivePeriod":{"start":"2010-10","end":"2011-01-01T10:00:00Z"},"subject":{"reference":"Group/g"}},
 {"resourceType":"Observation","id":"o3","status":"final","code":{"text":"x"},"valueInteger":7,
  "effectiveInstant":"2015-02-07T13:28:17.239+02:00"},
 {"resourceType":"Observation","id":"o4","status":"amended","code":{"text":"x"},
  "valueDateTime":"2010-10-10T10:00:00+01:00"}
]
"""
RESOURCES: list[dict[str, Any]] = canonical.load(_TEXT)


def same(a: Any, b: Any) -> bool:
    """Equal values of the same type; decimals to the digits that a double keeps."""
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= 1e-12 * max(1.0, abs(a))
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    return type(a) is type(b) and a == b
