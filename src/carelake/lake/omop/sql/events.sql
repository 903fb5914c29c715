-- Everything coded that happened to somebody, one shape for all: kept says whether its status makes it a fact, part
-- tells rows of one resource apart. Codes are those of the vocabulary that most sources are billed in, else the first.
SELECT
    'Condition' AS kind, id, 0 AS part, patient_id, encounter_id,
    coalesce(onset_time, onset_start, asserted_date, recorded_date) AS starts,
    coalesce(abatement_time, abatement_end, abatement_start) AS ends,
    CASE WHEN icd10cm IS NOT NULL THEN 'http://hl7.org/fhir/sid/icd-10-cm'
        WHEN snomed IS NOT NULL THEN 'http://snomed.info/sct'
        WHEN icd9cm IS NOT NULL THEN 'http://hl7.org/fhir/sid/icd-9-cm' ELSE code_system END AS system,
    coalesce(icd10cm, snomed, icd9cm, code) AS code,
    'condition_occurrence' AS fallback,
    CASE WHEN category = 'problem-list-item' THEN 'problem_list' ELSE 'ehr' END AS origin,
    coalesce(verification_status, '') NOT IN ('entered-in-error', 'refuted') AS kept,
    clinical_status AS status
FROM condition
UNION ALL BY NAME
SELECT
    'Observation' AS kind, o.id, 0 AS part, patient_id, encounter_id,
    coalesce(effective_time, effective_instant, effective_start, issued) AS starts,
    CASE WHEN loinc IS NOT NULL THEN 'http://loinc.org' ELSE code_system END AS system,
    coalesce(loinc, code) AS code,
    CASE WHEN list_has_any(categories, ['laboratory', 'vital-signs']) OR coalesce(value, value_integer) IS NOT NULL
        THEN 'measurement' ELSE 'observation' END AS fallback,
    CASE WHEN list_contains(categories, 'laboratory') THEN 'laboratory' ELSE 'ehr' END AS origin,
    status IN ('final', 'amended', 'corrected', 'preliminary') AS kept,
    coalesce(value::VARCHAR, value_integer::VARCHAR, value_code, value_string, value_boolean::VARCHAR, value_time,
        absent_reason) IS NULL AND o.id IN (SELECT c.id FROM observation_component c) AS panel,
    coalesce(value, value_integer) AS number, value_comparator AS comparator, value_unit_code AS unit,
    value_unit_system AS unit_system, value_code, value_code_system AS value_system,
    reference_low AS low, reference_high AS high, performer_practitioner_id AS practitioner_id
FROM observation o
UNION ALL BY NAME
SELECT
    'Observation' AS kind, id, position + 1 AS part, patient_id, encounter_id,
    coalesce(effective_time, effective_instant, effective_start, issued) AS starts,
    CASE WHEN component_loinc IS NOT NULL THEN 'http://loinc.org' ELSE component_code_system END AS system,
    coalesce(component_loinc, component_code) AS code,
    CASE WHEN list_has_any(categories, ['laboratory', 'vital-signs']) OR coalesce(value, value_integer) IS NOT NULL
        THEN 'measurement' ELSE 'observation' END AS fallback,
    CASE WHEN list_contains(categories, 'laboratory') THEN 'laboratory' ELSE 'ehr' END AS origin,
    status IN ('final', 'amended', 'corrected', 'preliminary') AS kept,
    coalesce(value, value_integer) AS number, value_comparator AS comparator, value_unit_code AS unit,
    value_unit_system AS unit_system, value_code, value_code_system AS value_system,
    reference_low AS low, reference_high AS high
FROM observation_component
UNION ALL BY NAME
SELECT
    'MedicationRequest' AS kind, r.id, 0 AS part, patient_id, encounter_id, authored_on AS starts, valid_end AS ends,
    CASE WHEN coalesce(r.rxnorm, m.rxnorm) IS NOT NULL THEN 'http://www.nlm.nih.gov/research/umls/rxnorm'
        WHEN coalesce(r.ndc, m.ndc) IS NOT NULL THEN 'http://hl7.org/fhir/sid/ndc'
        ELSE coalesce(r.code_system, m.code_system) END AS system,
    coalesce(r.rxnorm, m.rxnorm, r.ndc, m.ndc, r.code, m.code) AS code,
    'drug_exposure' AS fallback, 'prescription' AS origin,
    r.status IN ('active', 'on-hold', 'completed', 'stopped') AND intent LIKE '%order'
        AND NOT coalesce(do_not_perform, FALSE) AS kept,
    supply_days AS days_supply, quantity, refills, route, route_system, dose_unit_code AS dose_unit,
    requester_id AS practitioner_id
FROM medication_request r LEFT JOIN medication m ON m.id = r.medication_id
UNION ALL BY NAME
SELECT
    'MedicationDispense' AS kind, d.id, 0 AS part, patient_id, encounter_id,
    coalesce(when_handed_over, when_prepared) AS starts,
    CASE WHEN coalesce(d.rxnorm, m.rxnorm) IS NOT NULL THEN 'http://www.nlm.nih.gov/research/umls/rxnorm'
        WHEN coalesce(d.ndc, m.ndc) IS NOT NULL THEN 'http://hl7.org/fhir/sid/ndc'
        ELSE coalesce(d.code_system, m.code_system) END AS system,
    coalesce(d.rxnorm, m.rxnorm, d.ndc, m.ndc, d.code, m.code) AS code,
    'drug_exposure' AS fallback, 'dispensing' AS origin,
    d.status IN ('in-progress', 'on-hold', 'completed', 'stopped') AS kept,
    supply_days AS days_supply, quantity, route, route_system, dose_unit_code AS dose_unit
FROM medication_dispense d LEFT JOIN medication m ON m.id = d.medication_id
UNION ALL BY NAME
SELECT
    'MedicationAdministration' AS kind, a.id, 0 AS part, patient_id, encounter_id,
    coalesce(effective_time, effective_start) AS starts, effective_end AS ends,
    CASE WHEN coalesce(a.rxnorm, m.rxnorm) IS NOT NULL THEN 'http://www.nlm.nih.gov/research/umls/rxnorm'
        WHEN coalesce(a.ndc, m.ndc) IS NOT NULL THEN 'http://hl7.org/fhir/sid/ndc'
        ELSE coalesce(a.code_system, m.code_system) END AS system,
    coalesce(a.rxnorm, m.rxnorm, a.ndc, m.ndc, a.code, m.code) AS code,
    'drug_exposure' AS fallback, 'administration' AS origin,
    a.status IN ('in-progress', 'on-hold', 'completed', 'stopped') AS kept,
    dose AS quantity, route, route_system, dose_unit_code AS dose_unit
FROM medication_administration a LEFT JOIN medication m ON m.id = a.medication_id
UNION ALL BY NAME
SELECT
    'Immunization' AS kind, id, 0 AS part, patient_id, encounter_id, occurrence_time AS starts,
    CASE WHEN cvx IS NOT NULL THEN 'http://hl7.org/fhir/sid/cvx' WHEN ndc IS NOT NULL THEN 'http://hl7.org/fhir/sid/ndc'
        ELSE code_system END AS system,
    coalesce(cvx, ndc, code) AS code, 'drug_exposure' AS fallback, 'ehr' AS origin, status = 'completed' AS kept,
    dose AS quantity, route, route_system, dose_unit_code AS dose_unit, lot_number AS lot,
    performer_id AS practitioner_id
FROM immunization
UNION ALL BY NAME
SELECT
    'Procedure' AS kind, id, 0 AS part, patient_id, encounter_id, coalesce(performed_time, performed_start) AS starts,
    performed_end AS ends,
    CASE WHEN cpt IS NOT NULL THEN 'http://www.ama-assn.org/go/cpt'
        WHEN hcpcs IS NOT NULL THEN 'http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets'
        WHEN icd10pcs IS NOT NULL THEN 'http://www.cms.gov/Medicare/Coding/ICD10'
        WHEN snomed IS NOT NULL THEN 'http://snomed.info/sct' ELSE code_system END AS system,
    coalesce(cpt, hcpcs, icd10pcs, snomed, code) AS code,
    'procedure_occurrence' AS fallback, 'ehr' AS origin,
    status IN ('completed', 'in-progress', 'stopped') AS kept, performer_id AS practitioner_id
FROM procedure
UNION ALL BY NAME
SELECT
    'AllergyIntolerance' AS kind, id, 0 AS part, patient_id, encounter_id,
    coalesce(onset_time, onset_start, recorded_date) AS starts,
    CASE WHEN snomed IS NOT NULL THEN 'http://snomed.info/sct'
        WHEN rxnorm IS NOT NULL THEN 'http://www.nlm.nih.gov/research/umls/rxnorm' ELSE code_system END AS system,
    coalesce(snomed, rxnorm, code) AS code, 'observation' AS fallback, 'ehr' AS origin,
    coalesce(verification_status, '') NOT IN ('entered-in-error', 'refuted') AS kept
FROM allergy_intolerance
UNION ALL BY NAME
SELECT
    'Device' AS kind, d.id, 0 AS part, d.patient_id, NULL AS encounter_id,
    min(coalesce(u.timing_time, u.timing_start, u.recorded_on)) AS starts, max(u.timing_end) AS ends,
    d.type_system AS system, d.type AS code, 'device_exposure' AS fallback, 'ehr' AS origin,
    coalesce(d.status, '') <> 'entered-in-error' AS kept,
    d.udi_device_identifier AS udi, coalesce(d.serial_number, d.lot_number) AS lot
FROM device d LEFT JOIN device_use u ON u.device_id = d.id AND u.status <> 'entered-in-error'
GROUP BY ALL
