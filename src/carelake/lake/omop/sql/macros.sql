-- `fact`: the concept that is known without a vocabulary, else 0. `zip_of`: a ZIP+4 code without its hyphen.
CREATE OR REPLACE TEMP MACRO fact(of, said) AS
    coalesce((SELECT any_value(f.id) FROM facts f WHERE f.kind = of AND f.code = said), 0);
CREATE OR REPLACE TEMP MACRO zip_of(said) AS
    CASE WHEN regexp_full_match(said, '[0-9]{5}-[0-9]{4}') THEN replace(said, '-', '') ELSE said END;
