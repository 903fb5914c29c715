-- One row per person with hypertension, 18 to 85 at the period's end, who was seen in it. Of the last day with a whole
-- reading the lowest systolic and the lowest diastolic value count.
WITH readings AS (
    SELECT b.patient_id, systolic, diastolic,
        coalesce(time_of(effective_time), time_of(effective_instant), time_of(effective_start))::DATE AS on_day
    FROM blood_pressure b LEFT JOIN visit v ON v.id = b.encounter_id
    WHERE b.status IN ('final', 'amended', 'corrected') AND systolic IS NOT NULL AND diastolic IS NOT NULL
        AND NOT coalesce(v.inpatient OR v.emergency, FALSE)
),
in_period AS (
    SELECT *, max(on_day) OVER (PARTITION BY patient_id) AS last_day FROM readings
    WHERE on_day >= begins() AND on_day < ends()
),
latest AS (
    SELECT patient_id, min(systolic) AS systolic, min(diastolic) AS diastolic
    FROM in_period WHERE on_day = last_day GROUP BY patient_id
)
SELECT p.id, p.id AS patient_id, p.age, p.sex, p.race, TRUE AS denominator,
    in_hospice(p.id) OR has(p.id, 'renal_failure', ends()) OR was_pregnant(p.id) AS excluded,
    coalesce(l.systolic < 140 AND l.diastolic < 90, FALSE) AS numerator
FROM people p LEFT JOIN latest l ON l.patient_id = p.id
WHERE p.age BETWEEN 18 AND 85 AND has(p.id, 'hypertension', begins() + INTERVAL 6 MONTH) AND seen(p.id)
