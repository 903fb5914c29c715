-- One row per patient.
WITH p AS (
    SELECT *, from_json(extension, '[{"url":"VARCHAR","extension":[{"url":"VARCHAR","valueString":"VARCHAR",'
        || '"valueCoding":{"code":"VARCHAR","display":"VARCHAR"}}]}]') AS said
    FROM resources
)
SELECT
    id AS subject_id,
    gender AS sex,
    utc(birthDate)::DATE AS birth_date,
    coalesce(deceasedBoolean, deceasedDateTime IS NOT NULL) AS deceased,
    utc(deceasedDateTime) AS deceased_time,
    coalesce(length(deceasedDateTime) <= 10, false) AS deceased_day_only,
    said_of(us_core(said, 'race')) AS race,
    said_of(us_core(said, 'ethnicity')) AS ethnicity
FROM p
ORDER BY id
