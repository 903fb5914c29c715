-- As population.sql; days of stays are told by class and number of days, so that their median can be told of all.
WITH member AS (
    SELECT p.*,
        epoch(least(ends(), coalesce(p.died, ends())) - greatest(begins(), p.born::TIMESTAMP)) / 86400 / 30.4375 AS months
    FROM people p
    WHERE p.born < ends() AND coalesce(p.died > begins(), TRUE)
        AND EXISTS (SELECT 1 FROM visit v WHERE v.patient_id = p.id AND v.starts < ends())
),
used AS (
    SELECT v.* FROM visit v JOIN member m ON m.id = v.patient_id WHERE v.starts >= begins() AND v.starts < ends()
)
SELECT 'people' AS section, '' AS a, '' AS b, count(*)::DOUBLE AS n FROM member
UNION ALL SELECT 'months', '', '', coalesce(sum(months), 0) FROM member
UNION ALL SELECT 'encounters', coalesce(class, 'unknown'), '', count(*) FROM used GROUP BY ALL
UNION ALL SELECT 'patients', coalesce(class, 'unknown'), '', count(DISTINCT patient_id) FROM used GROUP BY ALL
UNION ALL SELECT 'days', '', date_diff('day', starts::DATE, ends::DATE)::VARCHAR, count(*)
    FROM used WHERE inpatient AND ends IS NOT NULL GROUP BY ALL
UNION ALL SELECT 'stayed', '', '', count(DISTINCT patient_id) FROM used WHERE inpatient AND ends IS NOT NULL
UNION ALL SELECT 'conditions', left(code, 3), '', count(DISTINCT patient_id)
    FROM diagnosis JOIN member m ON m.id = patient_id
    WHERE system = 'http://hl7.org/fhir/sid/icd-10-cm' AND coalesce(starts < ends(), TRUE)
        AND coalesce(ends >= begins(), TRUE) AND (coalesce(starts >= begins(), FALSE)
            OR NOT (ends IS NULL AND coalesce(clinical_status, '') IN ('inactive', 'remission', 'resolved')))
    GROUP BY ALL
