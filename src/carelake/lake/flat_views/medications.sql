-- One row per medication request. code is null where the medication is only referred to.
WITH m AS (
    SELECT *, pick(medicationCodeableConcept.coding, 'http://www.nlm.nih.gov/research/umls/rxnorm') AS coded
    FROM resources
)
SELECT
    id AS medication_id,
    target(subject.reference, 'Patient') AS subject_id,
    target(encounter.reference, 'Encounter') AS encounter_id,
    coalesce(coded.code, target(medicationReference.reference, 'Medication')) AS code,
    coded.system AS system,
    coalesce(coded.display, medicationCodeableConcept.text) AS display,
    category[1].coding[1].code AS category,
    status,
    intent,
    utc(authoredOn) AS time
FROM m
ORDER BY id
