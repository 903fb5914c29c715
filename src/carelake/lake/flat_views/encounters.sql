-- One row per encounter. admission_type is the v3-ActPriority code; null where the record does not say.
WITH e AS (
    SELECT *, pick(type[1].coding, 'http://www.ama-assn.org/go/cpt') AS kind, serviceType.coding[1] AS serving
    FROM resources
)
SELECT
    id AS encounter_id,
    target(subject.reference, 'Patient') AS subject_id,
    class.code AS class,
    status,
    utc(period.start) AS start_time,
    utc(period."end") AS end_time,
    pick(priority.coding, 'http://terminology.hl7.org/CodeSystem/v3-ActPriority').code AS admission_type,
    pick(hospitalization.admitSource.coding, 'http://terminology.hl7.org/CodeSystem/admit-source').code AS admit_source,
    pick(hospitalization.dischargeDisposition.coding,
        'http://terminology.hl7.org/CodeSystem/discharge-disposition').code AS discharge_disposition,
    serving.code AS service,
    coalesce(serving.display, serviceType.text) AS service_text,
    kind.code AS type_code,
    kind.system AS type_system,
    coalesce(kind.display, type[1].text) AS type_text
FROM e
ORDER BY id
