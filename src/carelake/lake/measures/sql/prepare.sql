-- What the measures share, for a shard of patients: people, visit, diagnosis. `begins()` and `ends()` are the period's,
-- its end not in it; value_set has name, system, code, prefix.
CREATE TEMP MACRO is_in(set_name, of_system, said) AS EXISTS (
    SELECT 1 FROM value_set s
    WHERE s.name = set_name AND (s.system = '' OR s.system = of_system)
        AND CASE WHEN s.prefix THEN starts_with(said, s.code) ELSE said = s.code END
);

CREATE TEMP TABLE visit AS
SELECT e.id, patient_id, class, class_system, status, priority, discharge_disposition AS disposition,
    time_of(e.start) AS starts,
    -- greatest() passes over null, and what has not ended has no end.
    CASE WHEN time_of(e."end") IS NOT NULL THEN greatest(time_of(e."end"), time_of(e.start)) END AS ends,
    is_in('inpatient', class_system, class) AS inpatient, is_in('emergency', class_system, class) AS emergency
FROM encounter e
WHERE time_of(e.start) IS NOT NULL AND NOT is_in('void_encounter', '', coalesce(status, ''));

-- Who died nobody knows when was alive when last seen. Race and ethnicity are told by their codes, not in the record's words.
CREATE TEMP TABLE people AS
SELECT id, day_of(birth_date) AS born, gender AS sex,
    CASE race WHEN '1002-5' THEN 'American Indian or Alaska Native' WHEN '2028-9' THEN 'Asian'
        WHEN '2054-5' THEN 'Black or African American' WHEN '2076-8' THEN 'Native Hawaiian or Other Pacific Islander'
        WHEN '2106-3' THEN 'White' WHEN '2131-1' THEN 'Other Race' ELSE race END AS race,
    CASE ethnicity WHEN '2135-2' THEN 'Hispanic or Latino' WHEN '2186-5' THEN 'Not Hispanic or Latino'
        ELSE ethnicity END AS ethnicity,
    coalesce(last_time_of(deceased_time), CASE WHEN deceased THEN greatest(begins(), s.last + INTERVAL 1 DAY) END) AS died,
    years(day_of(birth_date), (ends() - INTERVAL 1 DAY)::DATE) AS age
FROM patient
LEFT JOIN (SELECT patient_id, max(coalesce(ends, starts)) AS last FROM visit GROUP BY patient_id) s ON s.patient_id = id
WHERE day_of(birth_date) IS NOT NULL;

CREATE TEMP TABLE diagnosis AS
SELECT c.patient_id, u.system, u.code,
    coalesce(time_of(onset_time), time_of(onset_start), time_of(asserted_date), time_of(recorded_date), v.starts)
        AS starts,
    coalesce(time_of(abatement_time), time_of(abatement_end), time_of(abatement_start)) AS ends,
    c.clinical_status
FROM condition c
LEFT JOIN visit v ON v.id = c.encounter_id
CROSS JOIN LATERAL (
    SELECT DISTINCT * FROM (VALUES
        (c.code_system, c.code), ('http://hl7.org/fhir/sid/icd-10-cm', c.icd10cm),
        ('http://snomed.info/sct', c.snomed), ('http://hl7.org/fhir/sid/icd-9-cm', c.icd9cm)
    ) AS x(system, code) WHERE x.code IS NOT NULL
) u
WHERE coalesce(verification_status, '') NOT IN ('entered-in-error', 'refuted');

-- Who has a diagnosis of a set that was active in the period and began before a moment.
CREATE TEMP MACRO has(person, set_name, before) AS EXISTS (
    SELECT 1 FROM diagnosis d
    WHERE d.patient_id = person AND is_in(set_name, d.system, d.code)
        AND (d.starts IS NULL OR d.starts < before) AND (d.ends IS NULL OR d.ends >= begins())
        AND NOT (d.ends IS NULL AND coalesce(d.clinical_status, '') IN ('inactive', 'remission', 'resolved'))
);
-- Who was pregnant in the period: a diagnosis without an end lasts no longer than a pregnancy does.
CREATE TEMP MACRO was_pregnant(person) AS EXISTS (
    SELECT 1 FROM diagnosis d
    WHERE d.patient_id = person AND is_in('pregnancy', d.system, d.code)
        AND (d.starts IS NULL OR d.starts < ends()) AND (d.ends IS NULL OR d.ends >= begins())
        AND (coalesce(d.starts >= begins(), FALSE) OR d.ends IS NOT NULL OR (
            coalesce(d.starts >= begins() - INTERVAL 10 MONTH, TRUE)
            AND coalesce(d.clinical_status, '') NOT IN ('inactive', 'remission', 'resolved')))
);
CREATE TEMP MACRO seen(person) AS EXISTS (
    SELECT 1 FROM visit v WHERE v.patient_id = person AND v.starts >= begins() AND v.starts < ends()
);
CREATE TEMP MACRO in_hospice(person) AS EXISTS (
    SELECT 1 FROM visit v WHERE v.patient_id = person AND v.ends >= begins() AND v.ends < ends()
        AND is_in('hospice', '', v.disposition)
);
