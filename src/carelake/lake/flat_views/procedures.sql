-- One row per procedure.
WITH p AS (
    SELECT *, pick(code.coding, 'http://www.cms.gov/Medicare/Coding/ICD10') AS coded FROM resources
)
SELECT
    id AS procedure_id,
    target(subject.reference, 'Patient') AS subject_id,
    target(encounter.reference, 'Encounter') AS encounter_id,
    coded.code AS code,
    coded.system AS system,
    coalesce(coded.display, code.text) AS display,
    status,
    coalesce(utc(performedDateTime), utc(performedPeriod.start)) AS time,
    utc(performedPeriod."end") AS end_time
FROM p
ORDER BY id
