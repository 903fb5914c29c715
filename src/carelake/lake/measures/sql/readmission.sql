-- One row per stay that ended in the period, 30 days or more before its end. Inpatient encounters less than 24 hours
-- apart are one stay: a transfer. The row's id is of the stay's last encounter.
WITH inpatients AS (
    SELECT *, max(coalesce(ends, starts)) OVER (
        PARTITION BY patient_id ORDER BY starts, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier
    FROM visit WHERE inpatient
),
numbered AS (
    SELECT *, sum(CASE WHEN earlier IS NULL OR starts >= earlier + INTERVAL 24 HOUR THEN 1 ELSE 0 END)
        OVER (PARTITION BY patient_id ORDER BY starts, id) AS stay
    FROM inpatients
),
stays AS (
    SELECT patient_id, stay, min(starts) AS admitted, arg_min(priority, (starts, id)) AS priority,
        CASE WHEN bool_or(ends IS NULL OR status <> 'finished') THEN NULL ELSE max(ends) END AS discharged,
        arg_max(disposition, (coalesce(ends, starts), starts, id)) AS disposition,
        arg_max(id, (coalesce(ends, starts), starts, id)) AS id
    FROM numbered GROUP BY patient_id, stay
)
SELECT s.id, s.patient_id, years(p.born, s.admitted::DATE) AS age, p.sex, p.race,
    TRUE AS denominator,
    coalesce(is_in('expired', '', s.disposition) OR is_in('hospice', '', s.disposition)
        OR is_in('against_advice', '', s.disposition) OR is_in('acute_transfer', '', s.disposition), FALSE)
        OR coalesce(p.died <= s.discharged, FALSE) AS excluded,
    EXISTS (
        SELECT 1 FROM stays r
        WHERE r.patient_id = s.patient_id AND r.admitted > s.discharged
            AND r.admitted <= s.discharged + INTERVAL 30 DAY
            AND NOT coalesce(is_in('planned', '', r.priority), FALSE)
    ) AS numerator
FROM stays s JOIN people p ON p.id = s.patient_id
WHERE s.discharged >= begins() AND s.discharged < ends() - INTERVAL 30 DAY AND years(p.born, s.admitted::DATE) >= 18
