-- Counts that add up over shards: section, a, b, n. Somebody is in the population who was born before the period's end,
-- alive at its begin, and had an encounter before its end.
WITH member AS (
    SELECT p.* FROM people p
    WHERE p.born < ends() AND coalesce(p.died > begins(), TRUE)
        AND EXISTS (SELECT 1 FROM visit v WHERE v.patient_id = p.id AND v.starts < ends())
),
-- A payor that is a person, as who pays for oneself, is not named.
payer AS (
    SELECT m.id, coalesce(
        (SELECT arg_max(coalesce(o.name, CASE WHEN c.payor_id IS NOT NULL THEN c.payor_display END, c.type_display, c.type),
            coalesce(c.start, ''))
            FROM coverage c LEFT JOIN organization o ON o.id = c.payor_id
            WHERE c.patient_id = m.id AND coalesce(time_of(c.start) < ends(), TRUE)),
        (SELECT arg_max(c.insurance_display, coalesce(c.created, '')) FROM claim c
            WHERE c.patient_id = m.id AND coalesce(time_of(c.created) < ends(), TRUE))) AS payer
    FROM member m
)
SELECT 'people' AS section, '' AS a, '' AS b, count(*)::DOUBLE AS n FROM member
UNION ALL SELECT 'age and sex', band(age), coalesce(sex, 'unknown'), count(*) FROM member GROUP BY ALL
UNION ALL SELECT 'race', coalesce(race, 'unknown'), '', count(*) FROM member GROUP BY ALL
UNION ALL SELECT 'ethnicity', coalesce(ethnicity, 'unknown'), '', count(*) FROM member GROUP BY ALL
UNION ALL SELECT 'payer', coalesce(payer, 'unknown'), '', count(*) FROM payer GROUP BY ALL
UNION ALL SELECT 'died in the period', '', '', count(*) FROM member WHERE died < ends()
