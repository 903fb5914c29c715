-- One row per adult. events: days on which an emergency visit began in the period that was not within a stay nor followed
-- by an admission within 24 hours of its end; months: of the period in which the person was alive.
WITH visits AS (
    SELECT e.patient_id, count(DISTINCT e.starts::DATE) AS n
    FROM visit e
    WHERE e.emergency AND e.starts >= begins() AND e.starts < ends() AND NOT EXISTS (
        SELECT 1 FROM visit i
        WHERE i.patient_id = e.patient_id AND i.inpatient
            AND (i.starts >= e.starts OR i.ends > e.starts)
            AND i.starts <= coalesce(e.ends, e.starts) + INTERVAL 24 HOUR
    )
    GROUP BY e.patient_id
)
SELECT p.id, p.id AS patient_id, p.age, p.sex, p.race, TRUE AS denominator,
    in_hospice(p.id) AS excluded, coalesce(v.n, 0) > 0 AS numerator, coalesce(v.n, 0) AS events,
    epoch(least(ends(), coalesce(p.died, ends())) - greatest(begins(), p.born::TIMESTAMP)) / 86400 / 30.4375 AS months
FROM people p LEFT JOIN visits v ON v.patient_id = p.id
WHERE p.age >= 18 AND coalesce(p.died > begins(), TRUE) AND EXISTS (
    SELECT 1 FROM visit a WHERE a.patient_id = p.id AND a.starts < ends() AND a.starts >= ends() - INTERVAL 24 MONTH)
