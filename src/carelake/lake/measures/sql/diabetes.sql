-- One row per person with diabetes, 18 to 75 at the period's end, who was seen in it. The last HbA1c of the period counts:
-- in per cent, or in mmol/mol by the master equation of the NGSP; of several at one moment the lowest.
WITH tests AS (
    SELECT o.patient_id,
        coalesce(time_of(effective_time), time_of(effective_instant), time_of(effective_start)) AS taken,
        CASE WHEN u.unit IS NULL THEN CASE WHEN o.value < 25 THEN o.value END  -- more is of another unit
            WHEN starts_with(u.unit, '%') OR u.unit = 'percent' THEN o.value
            WHEN starts_with(u.unit, 'mmol/mol') THEN o.value * 0.09148 + 2.152 END AS percent
    FROM observation_lab o
    CROSS JOIN LATERAL (SELECT lower(coalesce(o.value_unit_code, o.value_unit)) AS unit) u
    WHERE status IN ('final', 'amended', 'corrected')
        AND (is_in('hba1c', 'http://loinc.org', o.loinc) OR is_in('hba1c', o.code_system, o.code))
),
result AS (
    SELECT DISTINCT ON (patient_id) patient_id, percent
    FROM tests WHERE taken >= begins() AND taken < ends() ORDER BY patient_id, taken DESC, percent NULLS LAST
)
SELECT p.id, p.id AS patient_id, p.age, p.sex, p.race, TRUE AS denominator, in_hospice(p.id) AS excluded, r.percent
FROM people p LEFT JOIN result r ON r.patient_id = p.id
WHERE p.age BETWEEN 18 AND 75 AND has(p.id, 'diabetes', ends()) AND seen(p.id)
