"""FHIR R4 resources as lines of JSON, by template: one function per type, fields as the standard orders them.

Every text comes from our own tables, which hold nothing that JSON would escape (a test holds them to it); notes
travel as base64. Numbers arrive as text, so that each keeps the digits it was measured with (decision D7).
See https://hl7.org/fhir/R4/resourcelist.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from carelake.synth.population import Person
from carelake.synth.tables import Measure

__all__ = [
    "claim",
    "condition",
    "document",
    "encounter",
    "location",
    "medication_request",
    "observation",
    "organization",
    "patient",
    "practitioner",
    "pressure",
    "procedure",
]

_HL7 = "http://terminology.hl7.org/CodeSystem"
_ICD10CM = "http://hl7.org/fhir/sid/icd-10-cm"
_ICD10PCS = "http://www.cms.gov/Medicare/Coding/ICD10"
_RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition"
MRN_SYSTEM = "urn:oid:2.16.840.1.113883.19.5.99999.1"

_CLASSES = {
    "AMB": "ambulatory",
    "EMER": "emergency",
    "IMP": "inpatient encounter",
}
_PRIORITIES = {"EM": "emergency", "UR": "urgent", "EL": "elective", "R": "routine"}
DISPOSITIONS = {
    "home": ("home", "Home"),
    "home_health": ("oth", "Home with home health services"),
    "snf": ("snf", "Skilled nursing facility"),
    "rehab": ("rehab", "Rehabilitation"),
    "against_advice": ("aadvice", "Left against advice"),
    "hospice": ("hosp", "Hospice"),
    "died": ("exp", "Expired"),
}
_SOURCES = {
    "emd": "From accident/emergency department",
    "outp": "From outpatient department",
    "hosp-trans": "Transferred from other hospital",
}


def _coding(system: str, code: str, display: str) -> str:
    return f'{{"coding":[{{"system":"{system}","code":"{code}","display":"{display}"}}]}}'


_CATEGORIES = {
    "lab": _coding(f"{_HL7}/observation-category", "laboratory", "Laboratory"),
    "vital": _coding(f"{_HL7}/observation-category", "vital-signs", "Vital Signs"),
    "problem": _coding(f"{_HL7}/condition-category", "problem-list-item", "Problem List Item"),
    "diagnosis": _coding(f"{_HL7}/condition-category", "encounter-diagnosis", "Encounter Diagnosis"),
    "discharge": _coding(f"{_HL7}/medicationrequest-category", "discharge", "Discharge"),
    "outpatient": _coding(f"{_HL7}/medicationrequest-category", "outpatient", "Outpatient"),
}
_ACTIVE = f'{{"coding":[{{"system":"{_HL7}/condition-clinical","code":"active"}}]}}'
_RESOLVED = f'{{"coding":[{{"system":"{_HL7}/condition-clinical","code":"resolved"}}]}}'
_CONFIRMED = f'{{"coding":[{{"system":"{_HL7}/condition-ver-status","code":"confirmed"}}]}}'


def organization(id: str, name: str, town: tuple[str, str], phone: str) -> str:
    """https://hl7.org/fhir/R4/organization.html"""
    return (
        f'{{"resourceType":"Organization","id":"{id}","active":true,'
        f'"type":[{_coding(f"{_HL7}/organization-type", "prov", "Healthcare Provider")}],"name":"{name}",'
        f'"telecom":[{{"system":"phone","value":"{phone}"}}],'
        f'"address":[{{"city":"{town[0]}","state":"MA","postalCode":"{town[1]}","country":"US"}}]}}'
    )


def location(id: str, name: str, code: str, organization: str) -> str:
    """https://hl7.org/fhir/R4/location.html; ``code`` of v3-RoleCode."""
    return (
        f'{{"resourceType":"Location","id":"{id}","status":"active","name":"{name}","mode":"instance",'
        f'"type":[{_coding(f"{_HL7}/v3-RoleCode", code, name)}],'
        f'"managingOrganization":{{"reference":"Organization/{organization}"}}}}'
    )


def practitioner(id: str, given: str, family: str) -> str:
    """https://hl7.org/fhir/R4/practitioner.html"""
    return (
        f'{{"resourceType":"Practitioner","id":"{id}","active":true,'
        f'"name":[{{"use":"official","family":"{family}","given":["{given}"],"prefix":["Dr."]}}]}}'
    )


def _us_core(name: str, code: str, display: str) -> str:
    return (
        f'{{"url":"{_US_CORE}/us-core-{name}","extension":[{{"url":"ombCategory","valueCoding":'
        f'{{"system":"urn:oid:2.16.840.1.113883.6.238","code":"{code}","display":"{display}"}}}},'
        f'{{"url":"text","valueString":"{display}"}}]}}'
    )


def patient(person: Person, died: str) -> str:
    """https://hl7.org/fhir/R4/patient.html with US Core race and ethnicity; marked as test data (HTEST)."""
    race, (city, zip_code) = person.race, person.town
    ethnicity = ("2135-2", "Hispanic or Latino") if person.hispanic else ("2186-5", "Not Hispanic or Latino")
    return (
        f'{{"resourceType":"Patient","id":"{person.id}","meta":{{"security":'
        f'[{{"system":"{_HL7}/v3-ActReason","code":"HTEST"}}]}},'
        f'"extension":[{_us_core("race", *race)},{_us_core("ethnicity", *ethnicity)}],'
        f'"identifier":[{{"use":"usual","type":{_coding(f"{_HL7}/v2-0203", "MR", "Medical record number")},'
        f'"system":"{MRN_SYSTEM}","value":"{person.mrn}"}}],'
        f'"name":[{{"use":"official","family":"{person.family}","given":["{person.given}"]}}],'
        f'"telecom":[{{"system":"phone","value":"{person.phone}","use":"home"}}],'
        f'"gender":"{"male" if person.male else "female"}","birthDate":"{person.birth_date}",'
        + (f'"deceasedDateTime":"{died}",' if died else "")
        + f'"address":[{{"use":"home","line":["{person.street}"],"city":"{city}","state":"MA",'
        f'"postalCode":"{zip_code}","country":"US"}}]}}'
    )


def encounter(
    id: str,
    patient: str,
    *,
    kind: str,
    kind_text: str,
    priority: str,
    begins: str,
    ends: str,
    reason: tuple[str, str] | None,
    diagnosis: str,
    service: tuple[str, str] | None,
    source: str,
    disposition: str,
    places: Sequence[tuple[str, str, str]],
    practitioner: str,
    organization: str,
) -> str:
    """https://hl7.org/fhir/R4/encounter.html; without ``ends`` it is in progress.

    ``kind`` is a code of v3-ActCode, ``places`` are (Location id, begin, end or "").
    """
    until = f',"end":"{ends}"' if ends else ""
    parts = [
        f'{{"resourceType":"Encounter","id":"{id}","status":"{"finished" if ends else "in-progress"}",'
        f'"class":{{"system":"{_HL7}/v3-ActCode","code":"{kind}","display":"{_CLASSES[kind]}"}},'
        f'"type":[{{"text":"{kind_text}"}}]'
    ]
    if service:
        parts.append(f'"serviceType":{_coding(f"{_HL7}/service-type", *service)}')
    parts.append(
        f'"priority":{_coding(f"{_HL7}/v3-ActPriority", priority, _PRIORITIES[priority])},'
        f'"subject":{{"reference":"Patient/{patient}"}},'
        f'"participant":[{{"individual":{{"reference":"Practitioner/{practitioner}"}}}}],'
        f'"period":{{"start":"{begins}"{until}}}'
    )
    if reason:
        parts.append(f'"reasonCode":[{_coding(_ICD10CM, *reason)}]')
    if diagnosis:
        parts.append(f'"diagnosis":[{{"condition":{{"reference":"Condition/{diagnosis}"}}}}]')
    if source or disposition:
        parts.append(f'"hospitalization":{{{_hospitalization(source, disposition)}}}')
    if places:
        parts.append(f'"location":[{",".join(_place(*place) for place in places)}]')
    parts.append(f'"serviceProvider":{{"reference":"Organization/{organization}"}}}}')
    return ",".join(parts)


def _hospitalization(source: str, disposition: str) -> str:
    parts = []
    if source:
        parts.append(f'"admitSource":{_coding(f"{_HL7}/admit-source", source, _SOURCES[source])}')
    if disposition:
        code, text = DISPOSITIONS[disposition]
        parts.append(
            f'"dischargeDisposition":{{"coding":[{{"system":"{_HL7}/discharge-disposition","code":"{code}"}}],'
            f'"text":"{text}"}}'
        )
    return ",".join(parts)


def _place(location: str, begins: str, ends: str) -> str:
    until = f',"end":"{ends}"' if ends else ""
    return f'{{"location":{{"reference":"Location/{location}"}},"period":{{"start":"{begins}"{until}}}}}'


def condition(
    id: str,
    patient: str,
    encounter: str,
    code: tuple[str, str],
    *,
    problem: bool,
    active: bool,
    onset: str,
    recorded: str,
) -> str:
    """https://hl7.org/fhir/R4/condition.html; ``problem`` for the problem list, else a diagnosis of the encounter."""
    return (
        f'{{"resourceType":"Condition","id":"{id}","clinicalStatus":{_ACTIVE if active else _RESOLVED},'
        f'"verificationStatus":{_CONFIRMED},"category":[{_CATEGORIES["problem" if problem else "diagnosis"]}],'
        f'"code":{_coding(_ICD10CM, *code)},"subject":{{"reference":"Patient/{patient}"}},'
        f'"encounter":{{"reference":"Encounter/{encounter}"}},"onsetDateTime":"{onset}","recordedDate":"{recorded}"}}'
    )


def observation(
    id: str, patient: str, encounter: str, measure: Measure, value: str, unit: str, taken: str, issued: str
) -> str:
    """https://hl7.org/fhir/R4/observation.html: one laboratory value or vital sign."""
    also = f',{{"system":"{_LOINC}","code":"{measure.also}"}}' if measure.also else ""
    return (
        f'{{"resourceType":"Observation","id":"{id}","status":"final",'
        f'"category":[{_CATEGORIES["vital" if measure.vital else "lab"]}],'
        f'"code":{{"coding":[{{"system":"{_LOINC}","code":"{measure.loinc}","display":"{measure.display}"}}{also}]}},'
        f'"subject":{{"reference":"Patient/{patient}"}},"encounter":{{"reference":"Encounter/{encounter}"}},'
        f'"effectiveDateTime":"{taken}","issued":"{issued}",'
        f'"valueQuantity":{{"value":{value},"unit":"{unit}","system":"{_UCUM}","code":"{unit}"}}}}'
    )


def pressure(id: str, patient: str, encounter: str, systolic: int, diastolic: int, taken: str, issued: str) -> str:
    """A blood pressure panel with its two components, as US Core wants it."""
    return (
        f'{{"resourceType":"Observation","id":"{id}","status":"final","category":[{_CATEGORIES["vital"]}],'
        f'"code":{_coding(_LOINC, "85354-9", "Blood pressure panel")},'
        f'"subject":{{"reference":"Patient/{patient}"}},"encounter":{{"reference":"Encounter/{encounter}"}},'
        f'"effectiveDateTime":"{taken}","issued":"{issued}","component":['
        f"{_component('8480-6', 'Systolic blood pressure', systolic)},"
        f"{_component('8462-4', 'Diastolic blood pressure', diastolic)}]}}"
    )


def _component(loinc: str, display: str, value: int) -> str:
    return (
        f'{{"code":{_coding(_LOINC, loinc, display)},'
        f'"valueQuantity":{{"value":{value},"unit":"mmHg","system":"{_UCUM}","code":"mm[Hg]"}}}}'
    )


def medication_request(
    id: str,
    patient: str,
    encounter: str,
    drug: tuple[str, str],
    dose: str,
    *,
    category: str,
    authored: str,
    practitioner: str,
) -> str:
    """https://hl7.org/fhir/R4/medicationrequest.html; ``drug`` is (RxNorm ingredient, name)."""
    return (
        f'{{"resourceType":"MedicationRequest","id":"{id}","status":"active","intent":"order",'
        f'"category":[{_CATEGORIES[category]}],"medicationCodeableConcept":{_coding(_RXNORM, *drug)},'
        f'"subject":{{"reference":"Patient/{patient}"}},"encounter":{{"reference":"Encounter/{encounter}"}},'
        f'"authoredOn":"{authored}","requester":{{"reference":"Practitioner/{practitioner}"}},'
        f'"dosageInstruction":[{{"text":"{dose}"}}]}}'
    )


def procedure(id: str, patient: str, encounter: str, code: tuple[str, str], performed: str) -> str:
    """https://hl7.org/fhir/R4/procedure.html; ICD-10-PCS."""
    return (
        f'{{"resourceType":"Procedure","id":"{id}","status":"completed","code":{_coding(_ICD10PCS, *code)},'
        f'"subject":{{"reference":"Patient/{patient}"}},"encounter":{{"reference":"Encounter/{encounter}"}},'
        f'"performedDateTime":"{performed}"}}'
    )


def document(
    id: str, patient: str, encounter: str, kind: tuple[str, str], *, written: str, author: str, text_base64: str
) -> str:
    """https://hl7.org/fhir/R4/documentreference.html; the text is UTF-8."""
    return (
        f'{{"resourceType":"DocumentReference","id":"{id}","status":"current","type":{_coding(_LOINC, *kind)},'
        f'"subject":{{"reference":"Patient/{patient}"}},"date":"{written}",'
        f'"author":[{{"reference":"Practitioner/{author}"}}],'
        f'"content":[{{"attachment":{{"contentType":"text/plain","data":"{text_base64}"}}}}],'
        f'"context":{{"encounter":[{{"reference":"Encounter/{encounter}"}}]}}}}'
    )


def claim(
    id: str,
    patient: str,
    encounter: str,
    *,
    begins: str,
    ends: str,
    created: str,
    organization: str,
    insurer: str,
    diagnoses: Sequence[tuple[str, str]],
    service: str,
    total: str,
) -> str:
    """https://hl7.org/fhir/R4/claim.html; institutional, billed after the visit."""
    listed = ",".join(
        f'{{"sequence":{number},"diagnosisCodeableConcept":{_coding(_ICD10CM, *code)}}}'
        for number, code in enumerate(diagnoses, 1)
    )
    money = f'{{"value":{total},"currency":"USD"}}'
    return (
        f'{{"resourceType":"Claim","id":"{id}","status":"active",'
        f'"type":{{"coding":[{{"system":"{_HL7}/claim-type","code":"institutional"}}]}},"use":"claim",'
        f'"patient":{{"reference":"Patient/{patient}"}},"billablePeriod":{{"start":"{begins}","end":"{ends}"}},'
        f'"created":"{created}","provider":{{"reference":"Organization/{organization}"}},'
        f'"priority":{{"coding":[{{"system":"{_HL7}/processpriority","code":"normal"}}]}},"diagnosis":[{listed}],'
        f'"insurance":[{{"sequence":1,"focal":true,"coverage":{{"display":"{insurer}"}}}}],'
        f'"item":[{{"sequence":1,"productOrService":{{"text":"{service}"}},"net":{money},'
        f'"encounter":[{{"reference":"Encounter/{encounter}"}}]}}],"total":{money}}}'
    )
