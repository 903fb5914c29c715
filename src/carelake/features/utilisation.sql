-- Encounters as events of a unit: a visit (one moment) or a stay (from, until).
-- Parameters: data_end. Units with no name are `other`.
SELECT
    CASE WHEN class = 'EMER' THEN 'emergency' ELSE lower(coalesce(service_text, service, 'other')) END AS unit,
    class = 'EMER' AS emergency,
    start_time,
    least(coalesce(end_time, $data_end), $data_end) AS end_time
FROM encounters
WHERE class IN ('EMER', 'IMP', 'ACUTE', 'NONAC')
  AND status NOT IN ('cancelled', 'entered-in-error', 'planned')
  AND start_time IS NOT NULL AND start_time <= $data_end
  AND (end_time IS NULL OR end_time >= start_time)
ORDER BY unit, start_time, encounter_id
