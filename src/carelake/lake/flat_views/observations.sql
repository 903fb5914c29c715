-- One row per coded numeric value: the observation's own (component 0) and each component's (from 1).
-- unit is the UCUM code where there is one. comparator is null for an exact value.
WITH o AS (
    SELECT
        id, status, code, subject, encounter, component, valueQuantity, valueInteger,
        category[1].coding[1].code AS category,
        coalesce(utc(effectiveDateTime), utc(effectiveInstant), utc(effectivePeriod."end"), utc(effectivePeriod.start),
            utc(issued)) AS time,
        utc(issued) AS issued
    FROM resources
),
measured AS (
    SELECT id, 0 AS component, status, category, subject, encounter, time, issued, code,
        valueQuantity AS quantity, valueInteger AS whole
    FROM o
    WHERE valueQuantity.value IS NOT NULL OR valueInteger IS NOT NULL
    UNION ALL
    SELECT id, nth, status, category, subject, encounter, time, issued, part.code, part.valueQuantity, part.valueInteger
    FROM (
        SELECT o.*, unnest(o.component) AS part, generate_subscripts(o.component, 1) AS nth
        FROM o
        WHERE len(o.component) > 0
    )
    WHERE part.valueQuantity.value IS NOT NULL OR part.valueInteger IS NOT NULL
),
coded AS (
    SELECT *, pick(code.coding, 'http://loinc.org') AS said FROM measured
)
SELECT
    id AS observation_id,
    component::INTEGER AS component,
    target(subject.reference, 'Patient') AS subject_id,
    target(encounter.reference, 'Encounter') AS encounter_id,
    category,
    status,
    said.code AS code,
    said.system AS system,
    coalesce(said.display, code.text) AS display,
    time,
    issued,
    coalesce(quantity.value, whole::DOUBLE) AS value,
    coalesce(quantity.value_text, whole::VARCHAR) AS value_text,
    quantity.comparator AS comparator,
    coalesce(quantity.code, quantity.unit) AS unit
FROM coded
ORDER BY id, component
