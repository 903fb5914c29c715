-- All inpatient stays, contiguous ones merged, each with the reason that keeps it out of the cohort (null: an index
-- admission) and with its label. Inputs: encounters, patients (lake views), codes (list, code).
-- Spark runs this text too (`features.engines`): words that both have, in one form that sqlglot knows.
-- Parameters: $gap_hours, $emergency_hours, $adult_age, $follow_up_days, $data_end.
WITH
visits AS (
    -- what is still to come at $data_end is not known then
    SELECT e.* EXCLUDE (end_time, discharge_disposition),
        CASE WHEN e.end_time <= $data_end::TIMESTAMP THEN e.end_time END AS end_time,
        CASE WHEN e.end_time <= $data_end::TIMESTAMP THEN e.discharge_disposition END AS discharge_disposition
    FROM encounters e
    WHERE subject_id IS NOT NULL AND start_time IS NOT NULL AND start_time <= $data_end::TIMESTAMP
      AND coalesce(status, '') NOT IN (SELECT code FROM codes WHERE list = 'void_encounter')
),
inpatient AS (
    SELECT *, max(coalesce(end_time, start_time)) OVER (
        PARTITION BY subject_id ORDER BY start_time, encounter_id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS earlier_end
    FROM visits
    WHERE class IN (SELECT code FROM codes WHERE list = 'inpatient')
),
numbered AS (
    SELECT *, sum(CASE WHEN earlier_end IS NULL OR start_time >= earlier_end + to_hours($gap_hours::INTEGER) THEN 1 ELSE 0 END)
        OVER (PARTITION BY subject_id ORDER BY start_time, encounter_id) AS stay
    FROM inpatient
),
placed AS (
    SELECT *,
        row_number() OVER (PARTITION BY subject_id, stay ORDER BY start_time, encounter_id) AS nth,
        row_number() OVER (PARTITION BY subject_id, stay
            ORDER BY coalesce(end_time, start_time) DESC, start_time DESC, encounter_id DESC) AS nth_last
    FROM numbered
),
merged AS (
    SELECT
        max(encounter_id) FILTER (WHERE nth_last = 1) AS encounter_id,
        subject_id,
        min(start_time) AS admitted,
        CASE WHEN bool_or(end_time IS NULL OR status IN (SELECT code FROM codes WHERE list = 'open_encounter'))
            THEN NULL ELSE max(end_time) END AS discharged,
        max(admission_type) FILTER (WHERE nth = 1) AS admission_type,
        max(admit_source) FILTER (WHERE nth = 1) AS admit_source,
        max(discharge_disposition) FILTER (WHERE nth_last = 1) AS discharge_disposition,
        max(service) FILTER (WHERE nth_last = 1) AS service,
        max(service_text) FILTER (WHERE nth_last = 1) AS service_text,
        count(*) AS encounters
    FROM placed
    GROUP BY subject_id, stay
),
emergency AS (
    SELECT subject_id, start_time, coalesce(end_time, start_time) AS end_time
    FROM visits
    WHERE class IN (SELECT code FROM codes WHERE list = 'emergency')
),
routed AS (
    SELECT s.*,
        CASE
            WHEN admission_type IN (SELECT code FROM codes WHERE list = 'unplanned') THEN true
            WHEN admission_type IN (SELECT code FROM codes WHERE list = 'planned') THEN false
            WHEN admit_source IN (SELECT code FROM codes WHERE list = 'through_emergency') THEN true
            WHEN EXISTS (
                SELECT 1 FROM emergency e
                WHERE e.subject_id = s.subject_id AND e.start_time <= s.admitted
                  AND e.end_time >= s.admitted - to_hours($emergency_hours::INTEGER)
            ) THEN true
        END AS unplanned   -- null: not recorded
    FROM merged s
),
-- A planned admission does not hide an unplanned one after it: any unplanned start in the window counts.
returns AS (
    SELECT i.subject_id, i.admitted, min(r.admitted) AS readmitted
    FROM routed i
    JOIN routed r ON r.subject_id = i.subject_id AND r.admitted > i.discharged
        AND r.admitted <= i.discharged + to_days($follow_up_days::INTEGER) AND coalesce(r.unplanned, true)
    GROUP BY i.subject_id, i.admitted
)
SELECT
    s.encounter_id, s.subject_id, s.admitted, s.discharged, s.encounters, s.unplanned,
    s.admission_type, s.admit_source, s.discharge_disposition, s.service, s.service_text,
    p.sex, p.race, p.ethnicity, p.birth_date,
    datesub('year', p.birth_date::TIMESTAMP, s.admitted) AS age,
    CASE
        WHEN s.discharged IS NULL THEN 'no_discharge'
        WHEN p.birth_date IS NULL THEN 'age_unknown'
        WHEN datesub('year', p.birth_date::TIMESTAMP, s.admitted) < $adult_age::INTEGER THEN 'under_age'
        WHEN s.discharge_disposition IN (SELECT code FROM codes WHERE list = 'expired') THEN 'died_in_stay'
        -- a date of death without a time, on the day of discharge, decides only where no disposition does
        WHEN p.deceased_time <= s.discharged AND NOT (
            p.deceased_day_only AND p.deceased_time::DATE = s.discharged::DATE
            AND s.discharge_disposition IS NOT NULL
        ) THEN 'died_in_stay'
        WHEN s.discharge_disposition IN (SELECT code FROM codes WHERE list = 'acute_transfer') THEN 'transferred'
    END AS reason,
    s.discharged + to_days($follow_up_days::INTEGER) > $data_end::TIMESTAMP AS censored,
    CASE WHEN s.discharged + to_days($follow_up_days::INTEGER) <= $data_end::TIMESTAMP THEN r.readmitted IS NOT NULL END AS label,
    CASE WHEN s.discharged + to_days($follow_up_days::INTEGER) <= $data_end::TIMESTAMP THEN r.readmitted END AS readmitted,
    coalesce(
        r.readmitted IS NULL AND p.deceased_time <= s.discharged + to_days($follow_up_days::INTEGER)
        AND s.discharged + to_days($follow_up_days::INTEGER) <= $data_end::TIMESTAMP, false
    ) AS died_first
FROM routed s
LEFT JOIN patients p ON p.subject_id = s.subject_id
LEFT JOIN returns r ON r.subject_id = s.subject_id AND r.admitted = s.admitted
ORDER BY s.subject_id, s.admitted, s.encounter_id
