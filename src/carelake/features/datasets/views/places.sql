-- One row per place of an encounter: where the patient was, from when to when. location_id is a Location's.
SELECT
    id AS encounter_id,
    target(subject.reference, 'Patient') AS subject_id,
    target(place.location.reference, 'Location') AS location_id,
    place.status AS status,
    utc(place.period.start) AS start_time,
    utc(place.period."end") AS end_time
FROM (SELECT id, subject, unnest(location) AS place FROM resources WHERE len(location) > 0)
ORDER BY id, start_time, location_id
