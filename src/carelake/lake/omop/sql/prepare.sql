-- Temporary tables of a shard, from its ready-made views, `number` (kind, id, n), `facts`, `mapped` and `release`.
CREATE TEMP TABLE people AS
SELECT p.*, k.n AS person_id, day_of(p.birth_date) AS born
FROM patient p JOIN number k ON k.kind = 'Patient' AND k.id = p.id
WHERE day_of(p.birth_date) IS NOT NULL;

CREATE TEMP TABLE visits AS
SELECT e.*, k.n AS visit_id, q.person_id, time_of(e.start) AS starts_at,
    greatest(time_of(e.start), coalesce(time_of(e."end"),
        CASE WHEN e.status <> 'finished' THEN (SELECT r.released FROM release r) END, time_of(e.start))) AS ends_at
FROM encounter e
JOIN number k ON k.kind = 'Encounter' AND k.id = e.id
JOIN people q ON q.id = e.patient_id
WHERE e.status IN ('arrived', 'triaged', 'in-progress', 'onleave', 'finished') AND time_of(e.start) IS NOT NULL;

CREATE TEMP TABLE told AS
SELECT e.*, k.n, q.person_id, v.visit_id, v.starts_at AS visit_starts,
    coalesce(day_of(e.starts), v.starts_at::DATE) AS start_day,
    coalesce(time_of(e.starts), v.starts_at) AS start_time,
    CASE WHEN NOT coalesce(e.kept, FALSE) THEN 'status'
        WHEN e.panel THEN 'panel, whose components are written'
        WHEN q.person_id IS NULL THEN 'person'
        WHEN coalesce(day_of(e.starts), v.starts_at::DATE) IS NULL THEN 'date' END AS left_out
FROM event e
JOIN number k ON k.kind = e.kind AND k.id = e.id
LEFT JOIN people q ON q.id = e.patient_id
LEFT JOIN visits v ON v.id = e.encounter_id AND v.person_id = q.person_id;

-- One row for each standard concept that a code maps to; one with concept 0 where there is none. What was observed is
-- told in measurement and observation alone: a finding may have been denied, and who is allergic to a drug was not given
-- it. A concept of a domain without a table is an observation.
CREATE TEMP TABLE coded AS
SELECT t.* EXCLUDE (left_out, value_code),
    CASE WHEN t.kind = 'AllergyIntolerance' AND m.domain = 'Drug' THEN fact('other', 'drug_allergy')
        ELSE coalesce(m.concept_id, 0) END AS concept_id,
    CASE WHEN t.kind = 'AllergyIntolerance' AND m.domain = 'Drug' THEN t.code ELSE t.value_code END AS value_code,
    coalesce(m.source_id, 0) AS source_id,
    CASE WHEN m.domain IS NULL THEN fallback
        WHEN t.kind = 'AllergyIntolerance' THEN 'observation'
        WHEN m.domain = 'Measurement' THEN 'measurement'
        WHEN t.kind = 'Observation' THEN 'observation'
        WHEN m.domain = 'Condition' THEN 'condition_occurrence' WHEN m.domain = 'Drug' THEN 'drug_exposure'
        WHEN m.domain = 'Procedure' THEN 'procedure_occurrence' WHEN m.domain = 'Device' THEN 'device_exposure'
        ELSE 'observation' END AS target,
    row_number() OVER (PARTITION BY t.kind, t.id ORDER BY t.part, m.concept_id) - 1 AS k,
    t.n * 64 + k AS row_id,
    p.n AS provider_id,
    CASE WHEN t.kind = 'AllergyIntolerance' AND m.domain = 'Drug' THEN m.concept_id
        ELSE coalesce(w.concept_id, 0) END AS value_concept_id, coalesce(u.concept_id, 0) AS unit_id,
    coalesce(r.concept_id, 0) AS route_id,
    -- greatest() passes over null, and what has not ended has no end.
    CASE WHEN time_of(t.ends) IS NOT NULL THEN greatest(start_time, time_of(t.ends)) END AS end_time
FROM told t
LEFT JOIN mapped m ON m.system = t.system AND m.code = t.code
LEFT JOIN (SELECT DISTINCT ON (system, code) * FROM mapped ORDER BY system, code, concept_id) w
    ON w.system = t.value_system AND w.code = t.value_code
LEFT JOIN (SELECT DISTINCT ON (system, code) * FROM mapped ORDER BY system, code, concept_id) u
    ON u.system = coalesce(t.unit_system, 'http://unitsofmeasure.org') AND u.code = t.unit
LEFT JOIN (SELECT DISTINCT ON (system, code) * FROM mapped ORDER BY system, code, concept_id) r
    ON r.system = t.route_system AND r.code = t.route
LEFT JOIN number_of_all p ON p.kind = 'Practitioner' AND p.id = t.practitioner_id
WHERE t.left_out IS NULL;
