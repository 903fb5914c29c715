-- Words for moments as the ready-made views show them, by the clock of the place where it happened. `fits`: a text that
-- has room, else nothing. `years`: full years from one day to another. `last_day_of`, `last_time_of`: the last that a
-- partial moment may mean.
CREATE OR REPLACE TEMP MACRO day_of(said) AS try_cast(
    CASE length(said) WHEN 4 THEN said || '-01-01' WHEN 7 THEN said || '-01' ELSE left(said, 10) END AS DATE);
CREATE OR REPLACE TEMP MACRO time_of(said) AS
    coalesce(CASE WHEN length(said) > 10 THEN try_cast(left(said, 19) AS TIMESTAMP) END, day_of(said)::TIMESTAMP);
CREATE OR REPLACE TEMP MACRO last_day_of(said) AS CASE length(said)
    WHEN 4 THEN try_cast(said || '-12-31' AS DATE) WHEN 7 THEN last_day(day_of(said)) ELSE day_of(said) END;
CREATE OR REPLACE TEMP MACRO last_time_of(said) AS
    CASE WHEN length(said) IN (4, 7) THEN last_day_of(said)::TIMESTAMP ELSE time_of(said) END;
CREATE OR REPLACE TEMP MACRO fits(said, room) AS CASE WHEN length(said) <= room THEN said END;
CREATE OR REPLACE TEMP MACRO years(born, on_day) AS
    year(on_day) - year(born)
    - CASE WHEN (month(on_day), day(on_day)) < (month(born), day(born)) THEN 1 ELSE 0 END;
