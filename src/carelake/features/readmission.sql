-- One row of features per row of `index_stays` (encounter_id, subject_id, admitted, discharged, as_of, unplanned,
-- discharge_disposition, service, service_text, sex, birth_date). Nothing after `as_of` is read, by the time of the event
-- and by the time it became available. Other inputs: stays (every merged stay), the flat views, and from this room's
-- data files codes (list, code), comorbidity (prefix, item), reading (name, code), unit (name, unit, factor, shift).
-- Spark runs this text too, see `cohort.sql`.
WITH
i AS (SELECT * FROM index_stays),
earlier AS (
    SELECT
        i.encounter_id,
        count(*) FILTER (WHERE s.admitted >= i.admitted - to_days(365)) AS admissions_12m,
        count(*) FILTER (WHERE s.admitted >= i.admitted - to_days(365) AND coalesce(s.unplanned, true))
            AS unplanned_admissions_12m,
        sum(epoch_us(least(coalesce(s.discharged, s.admitted), i.admitted)) - epoch_us(s.admitted))
            FILTER (WHERE s.admitted >= i.admitted - to_days(365))::DOUBLE / 86400e6 AS inpatient_days_12m,
        -- Bounded like its neighbours: without a bound it would grow with the length of the record and drift by itself.
        min(epoch_us(i.admitted) - epoch_us(s.discharged))
            FILTER (WHERE s.discharged <= i.admitted AND s.discharged >= i.admitted - to_days(365)) / 86400e6
            AS days_since_discharge
    FROM i JOIN stays s ON s.subject_id = i.subject_id AND s.admitted < i.admitted
    GROUP BY i.encounter_id
),
visits AS (
    SELECT
        encounter_id,
        count(*) FILTER (WHERE ed AND NOT led AND start_time >= admitted - to_days(183)) AS ed_visits_6m,
        count(*) FILTER (WHERE ed AND NOT led) AS ed_visits_12m,
        count(*) FILTER (WHERE ambulatory) AS ambulatory_visits_12m
    FROM (
        SELECT i.encounter_id, i.admitted, e.start_time,
            e.class IN (SELECT code FROM codes WHERE list = 'emergency') AS ed,
            e.class IN (SELECT code FROM codes WHERE list = 'ambulatory') AS ambulatory,
            coalesce(e.end_time, e.start_time) >= i.admitted - to_hours($emergency_hours::INTEGER) AS led
        FROM i JOIN encounters e ON e.subject_id = i.subject_id
            AND e.start_time < i.admitted AND e.start_time >= i.admitted - to_days(365)
        WHERE coalesce(e.status, '') NOT IN (SELECT code FROM codes WHERE list = 'void_encounter')
    )
    GROUP BY encounter_id
),
diagnosed AS (
    SELECT i.encounter_id, i.as_of, c.system, c.code, replace(upper(c.code), '.', '') AS plain, min(c.time) AS time
    FROM i JOIN conditions c ON c.subject_id = i.subject_id AND c.time <= i.as_of AND coalesce(c.recorded_time, c.time) <= i.as_of
    WHERE c.code IS NOT NULL
        AND coalesce(c.verification_status, '') NOT IN (SELECT code FROM codes WHERE list = 'void_condition')
    GROUP BY ALL
),
illness AS (
    SELECT encounter_id, count(*) AS conditions, count(*) FILTER (WHERE time >= as_of - to_days(365)) AS conditions_12m,
        count(*) FILTER (WHERE system = 'http://hl7.org/fhir/sid/icd-10-cm') AS icd
    FROM diagnosed
    GROUP BY encounter_id
),
meaning AS (
    SELECT DISTINCT d.plain, m.item
    FROM (SELECT DISTINCT plain FROM diagnosed WHERE system = 'http://hl7.org/fhir/sid/icd-10-cm') d
    JOIN comorbidity m ON starts_with(d.plain, m.prefix)
),
comorbid AS (
    SELECT d.encounter_id, list(DISTINCT m.item) AS items
    FROM diagnosed d JOIN meaning m USING (plain)
    WHERE d.system = 'http://hl7.org/fhir/sid/icd-10-cm'
    GROUP BY d.encounter_id
),
drugs AS (
    SELECT i.encounter_id,
        count(DISTINCT coalesce(m.code, m.display, m.medication_id)) FILTER (WHERE m.time >= i.admitted) AS medications_stay,
        count(DISTINCT coalesce(m.code, m.display, m.medication_id)) AS medications_12m
    FROM i JOIN medications m ON m.subject_id = i.subject_id AND m.time <= i.as_of AND m.time >= i.as_of - to_days(365)
    WHERE coalesce(m.status, '') NOT IN (SELECT code FROM codes WHERE list = 'void_medication')
    GROUP BY i.encounter_id
),
operations AS (
    SELECT i.encounter_id, count(*) AS procedures_stay
    FROM i JOIN procedures p ON p.subject_id = i.subject_id AND p.time >= i.admitted AND p.time <= i.as_of
    WHERE coalesce(p.status, '') NOT IN (SELECT code FROM codes WHERE list = 'void_procedure')
    GROUP BY i.encounter_id
),
measured AS (
    SELECT o.subject_id, o.observation_id, o.component, r.name, o.time, coalesce(o.issued, o.time) AS available,
        o.value * u.factor + u.shift AS value
    FROM observations o
    JOIN reading r ON r.code = o.code
    JOIN unit u ON u.name = r.name AND u.unit = o.unit
    WHERE o.system = 'http://loinc.org' AND o.comparator IS NULL
        AND coalesce(o.status, '') NOT IN (SELECT code FROM codes WHERE list = 'void_observation')
),
in_stay AS (
    SELECT i.encounter_id, m.name, m.value,
        row_number() OVER (PARTITION BY i.encounter_id, m.name
            ORDER BY m.time DESC, m.available DESC, m.observation_id DESC, m.component DESC) AS nth_last,
        row_number() OVER (PARTITION BY i.encounter_id, m.name
            ORDER BY m.time, m.available, m.observation_id, m.component) AS nth
    FROM i JOIN measured m ON m.subject_id = i.subject_id
        AND m.time <= i.as_of AND m.available <= i.as_of AND m.time >= i.admitted - to_days(1)
),
ends AS (
    SELECT encounter_id, name,
        max(value) FILTER (WHERE nth_last = 1) AS last_value,
        CASE WHEN count(*) > 1 THEN max(value) FILTER (WHERE nth_last = 1) - max(value) FILTER (WHERE nth = 1) END AS change
    FROM in_stay
    GROUP BY encounter_id, name
),
readings AS (
    SELECT encounter_id, map_from_entries(list({'k': name, 'v': {'last': last_value, 'change': change}})) AS r
    FROM ends
    GROUP BY encounter_id
)
SELECT
    i.encounter_id,
    (epoch_us(i.admitted) - epoch_us(i.birth_date::TIMESTAMP)) / 86400e6 / 365.25 AS age,
    CASE i.sex WHEN 'female' THEN 1.0 WHEN 'male' THEN 0.0 END AS female,
    (epoch_us(i.as_of) - epoch_us(i.admitted)) / 86400e6 AS los_days,
    i.unplanned::INTEGER AS emergent_admission,
    CASE WHEN i.service IS NOT NULL OR i.service_text IS NOT NULL THEN
        (coalesce(i.service IN (SELECT code FROM codes WHERE list = 'oncology'), false)
        OR coalesce(contains(lower(i.service_text), 'oncolog'), false))::INTEGER END AS oncology_service,
    (isodow(i.as_of) >= 6)::INTEGER AS weekend_discharge,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'home'))::INTEGER AS disposition_home,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'home_health'))::INTEGER AS disposition_home_health,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'skilled_nursing'))::INTEGER
        AS disposition_skilled_nursing,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'rehabilitation'))::INTEGER
        AS disposition_rehabilitation,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'hospice'))::INTEGER AS disposition_hospice,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'against_advice'))::INTEGER
        AS disposition_against_advice,
    (i.discharge_disposition IN (SELECT code FROM codes WHERE list = 'other'))::INTEGER AS disposition_other,
    coalesce(e.admissions_12m, 0) AS admissions_12m,
    coalesce(e.unplanned_admissions_12m, 0) AS unplanned_admissions_12m,
    coalesce(e.inpatient_days_12m, 0) AS inpatient_days_12m,
    e.days_since_discharge,
    coalesce(v.ed_visits_6m, 0) AS ed_visits_6m,
    coalesce(v.ed_visits_12m, 0) AS ed_visits_12m,
    coalesce(v.ambulatory_visits_12m, 0) AS ambulatory_visits_12m,
    coalesce(n.conditions, 0) AS conditions,
    coalesce(n.conditions_12m, 0) AS conditions_12m,
    -- with diagnoses in other code systems only, comorbidity is not known rather than absent
    CASE WHEN coalesce(n.conditions, 0) = 0 OR n.icd > 0 THEN coalesce(c.items, []::VARCHAR[]) END AS items,
    coalesce(d.medications_stay, 0) AS medications_stay,
    coalesce(d.medications_12m, 0) AS medications_12m,
    coalesce(o.procedures_stay, 0) AS procedures_stay,
    r.r AS readings
FROM i
LEFT JOIN earlier e USING (encounter_id)
LEFT JOIN visits v USING (encounter_id)
LEFT JOIN illness n USING (encounter_id)
LEFT JOIN comorbid c USING (encounter_id)
LEFT JOIN drugs d USING (encounter_id)
LEFT JOIN operations o USING (encounter_id)
LEFT JOIN readings r USING (encounter_id)
ORDER BY i.subject_id, i.admitted, i.encounter_id
