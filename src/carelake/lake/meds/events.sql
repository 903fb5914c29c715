-- Events of a shard, from the temporary tables of `omop/sql/prepare.sql` and `systems` (system, vocabulary). Times are
-- UTC. What has no code is no event: its text could say anything. A death that is known by its day or less stands at the
-- end of it, after what else is of that day.
WITH event AS (
    SELECT person_id, born::TIMESTAMP AS time, 'MEDS_BIRTH' AS code, NULL::DOUBLE AS number, NULL::VARCHAR AS text,
        NULL::VARCHAR AS unit, 0 AS rank
    FROM people
    UNION ALL
    SELECT person_id, died, 'MEDS_DEATH', NULL, NULL, NULL, 9
    FROM (
        SELECT person_id, CASE WHEN length(deceased_time) > 10 THEN utc(deceased_time)
            ELSE least(last_day_of(deceased_time) + INTERVAL 86399 SECOND, r.released) END AS died
        FROM people, release r
        WHERE day_of(deceased_time) IS NOT NULL
    ) WHERE died IS NOT NULL
    UNION ALL
    SELECT person_id, NULL, 'GENDER//' || gender, NULL, NULL, NULL, 0 FROM people WHERE gender IS NOT NULL
    UNION ALL
    SELECT person_id, NULL, 'RACE//' || race, NULL, NULL, NULL, 0 FROM people WHERE race IS NOT NULL
    UNION ALL
    SELECT person_id, NULL, 'ETHNICITY//' || ethnicity, NULL, NULL, NULL, 0 FROM people WHERE ethnicity IS NOT NULL
    UNION ALL
    SELECT person_id, utc(start), 'ENCOUNTER_START//' || coalesce(class, ''), NULL, admit_source, NULL, 1 FROM visits
    UNION ALL
    SELECT person_id, utc("end"), 'ENCOUNTER_END//' || coalesce(class, ''), NULL, discharge_disposition, NULL, 8
    FROM visits WHERE utc("end") >= utc(start)
    UNION ALL
    SELECT t.person_id, coalesce(utc(t.starts), utc(v.start)),
        -- An allergy to a drug is no drug that was given.
        CASE WHEN t.kind = 'AllergyIntolerance' THEN 'ALLERGY//' ELSE '' END || coalesce(s.vocabulary, regexp_replace(t.system, '^[a-z]+:/*', ''), 'LOCAL') || '//' || t.code,
        t.number, t.value_code, t.unit, 2
    FROM told t
    LEFT JOIN visits v ON v.visit_id = t.visit_id
    LEFT JOIN systems s ON s.system = t.system
    WHERE t.left_out IS NULL AND t.code IS NOT NULL AND coalesce(utc(t.starts), utc(v.start)) IS NOT NULL
)
SELECT person_id AS subject_id, time, code, number::FLOAT AS numeric_value, text AS text_value, unit
FROM event
ORDER BY person_id, time NULLS FIRST, rank, code, numeric_value, text_value, unit
