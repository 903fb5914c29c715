-- Every prediction time of a design with the reason that keeps it out (null: in) and what came of it.
-- Inputs, all times UTC: target (row, subject_id, start_time, end_time), outcome and competing (subject_id, time),
-- exclusion (place, subject_id, time, days), observation (subject_id, start_time, end_time).
-- Parameters: $every, $offset, $risk_from, $risk_to (hours), $at_end, $first, $observed, $keep_events, $competing_known (0 or 1),
-- $washout, $observed_days, $prior (days), $data_end.
WITH entries AS (
    SELECT *,
        row_number() OVER (PARTITION BY subject_id ORDER BY start_time, row) AS nth,
        lag(start_time) OVER (PARTITION BY subject_id ORDER BY start_time, row) AS earlier
    FROM target
),
moments AS (
    SELECT row, subject_id, start_time, nth, earlier,
        unnest(CASE
            WHEN $every::INTEGER > 0 AND start_time IS NOT NULL THEN generate_series(
                start_time + to_hours(CASE WHEN $offset::INTEGER > 0 THEN $offset::INTEGER ELSE $every::INTEGER END),
                least(coalesce(end_time, $data_end::TIMESTAMP), $data_end::TIMESTAMP) - to_microseconds(1),
                to_hours($every::INTEGER)
            )
            WHEN $every::INTEGER > 0 THEN []
            ELSE [CASE WHEN $at_end::INTEGER = 1 THEN end_time ELSE start_time END + to_hours($offset::INTEGER)]
        END) AS t
    FROM entries
),
numbered AS (
    SELECT *, row_number() OVER (ORDER BY row, t) AS moment FROM moments
),
seen AS (  -- the observation period that the prediction time lies in
    SELECT n.moment, max(o.start_time) AS seen_from, max(o.end_time) AS seen_until
    FROM numbered n JOIN observation o ON o.subject_id = n.subject_id AND o.start_time <= n.t AND o.end_time >= n.t
    GROUP BY n.moment
),
struck AS (
    SELECT n.moment, min(x.place) AS place
    FROM numbered n JOIN exclusion x ON x.subject_id = n.subject_id
        AND (x.time IS NULL OR (x.time <= n.t AND (x.days = 0 OR x.time > n.t - to_days(x.days))))
    GROUP BY n.moment
),
prior AS (
    SELECT n.moment, o.time AS prior_time
    FROM (FROM numbered WHERE subject_id IS NOT NULL AND t IS NOT NULL) n ASOF JOIN outcome o ON o.subject_id = n.subject_id AND o.time <= n.t
),
coming AS (
    SELECT n.moment, o.time AS outcome_time
    FROM (FROM numbered WHERE subject_id IS NOT NULL AND t IS NOT NULL) n
    ASOF JOIN outcome o ON o.subject_id = n.subject_id AND o.time > n.t + to_hours($risk_from::INTEGER)
),
other AS (
    SELECT subject_id, min(time) AS competing_time FROM competing GROUP BY subject_id
),
told AS (
    SELECT n.row, n.moment, n.subject_id, n.t, n.nth, n.earlier, n.start_time, s.seen_from, x.place, p.prior_time,
        n.t + to_hours($risk_to::INTEGER) AS until,
        least($data_end::TIMESTAMP, coalesce(s.seen_until, $data_end::TIMESTAMP)) AS last_seen,
        CASE WHEN c.outcome_time <= n.t + to_hours($risk_to::INTEGER) THEN c.outcome_time END AS outcome_time,
        o.competing_time
    FROM numbered n
    LEFT JOIN seen s USING (moment)
    LEFT JOIN struck x USING (moment)
    LEFT JOIN prior p USING (moment)
    LEFT JOIN coming c USING (moment)
    LEFT JOIN other o ON o.subject_id = n.subject_id
),
judged AS (
    SELECT *,
        CASE
            WHEN subject_id IS NULL OR t IS NULL THEN 'no_prediction_time'
            WHEN t > $data_end::TIMESTAMP OR start_time > $data_end::TIMESTAMP THEN 'after_data_end'
            WHEN $first::INTEGER = 1 AND nth > 1 THEN 'not_first'
            WHEN $washout::INTEGER > 0 AND earlier > start_time - to_days($washout::INTEGER) THEN 'washout'
            WHEN $observed::INTEGER = 1 AND (seen_from IS NULL OR seen_from > t - to_days($observed_days::INTEGER))
                THEN 'not_observed'
            WHEN $prior::INTEGER <> 0 AND prior_time IS NOT NULL
                AND ($prior::INTEGER = -1 OR prior_time > t - to_days(greatest($prior::INTEGER, 0))) THEN 'prior_outcome'
            WHEN competing_time <= t THEN 'competing_before'
            WHEN place IS NOT NULL THEN 'excluded:' || place
        END AS reason,
        -- the outcome comes first where both come at one moment
        CASE WHEN competing_time <= least(until, last_seen) AND (outcome_time IS NULL OR competing_time < outcome_time)
            THEN competing_time END AS competed,
        outcome_time <= last_seen AND (competing_time IS NULL OR outcome_time <= competing_time) AS happened
    FROM told
)
SELECT row, moment, subject_id, t AS prediction_time, reason,
    CASE
        WHEN happened AND ($keep_events::INTEGER = 1 OR until <= last_seen) THEN true
        WHEN competed IS NOT NULL AND $competing_known::INTEGER = 0 THEN NULL
        WHEN until <= last_seen OR (competed IS NOT NULL AND $keep_events::INTEGER = 1) THEN false
    END AS label,
    CASE WHEN happened THEN 'outcome' WHEN competed IS NOT NULL THEN 'competing'
        WHEN until > last_seen THEN 'censored' ELSE 'none' END AS event,
    CASE WHEN happened THEN outcome_time END AS outcome_time,
    greatest(epoch_us(CASE WHEN happened THEN outcome_time WHEN competed IS NOT NULL THEN competed
        ELSE least(until, last_seen) END) - epoch_us(t), 0)::DOUBLE / 86400e6 AS days_at_risk
FROM judged
ORDER BY subject_id, prediction_time, row
