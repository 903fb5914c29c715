-- One row per condition. time: onset, else when it was recorded; recorded_time: when the record began to say so.
WITH c AS (
    SELECT *, pick(code.coding, 'http://hl7.org/fhir/sid/icd-10-cm') AS coded FROM resources
)
SELECT
    id AS condition_id,
    target(subject.reference, 'Patient') AS subject_id,
    target(encounter.reference, 'Encounter') AS encounter_id,
    coded.code AS code,
    coded.system AS system,
    coalesce(coded.display, code.text) AS display,
    category[1].coding[1].code AS category,
    clinicalStatus.coding[1].code AS clinical_status,
    verificationStatus.coding[1].code AS verification_status,
    coalesce(utc(onsetDateTime), utc(onsetPeriod.start), utc(recordedDate)) AS time,
    utc(recordedDate) AS recorded_time,
    coalesce(utc(abatementDateTime), utc(abatementPeriod."end")) AS abated_time
FROM c
ORDER BY id
