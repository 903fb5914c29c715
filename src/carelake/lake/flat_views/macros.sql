-- Small words that the views share. `pick`: the coding of the system asked for, else the first. `target`: the id of
-- a reference to a type (relative, absolute, with or without a version), null when it is to another type.
CREATE OR REPLACE TEMP MACRO pick(codings, wanted) AS
    coalesce(list_filter(codings, lambda c: c.system = wanted)[1], codings[1]);
CREATE OR REPLACE TEMP MACRO target(said, kind) AS
    CASE
        WHEN starts_with(said, kind || '/') AND NOT contains(substr(said, length(kind) + 2), '/')
        THEN substr(said, length(kind) + 2)
        ELSE nullif(regexp_extract(said, '(?:^|/)' || kind || '/([A-Za-z0-9.-]{1,64})(?:/_history/[^/]*)?$', 1), '')
    END;
-- US Core race and ethnicity: the first OMB category's display, else the text.
CREATE OR REPLACE TEMP MACRO us_core(extensions, name) AS
    list_filter(
        extensions, lambda e: e.url = 'http://hl7.org/fhir/us/core/StructureDefinition/us-core-' || name
    )[1].extension;
CREATE OR REPLACE TEMP MACRO said_of(parts) AS coalesce(
    list_filter(parts, lambda p: p.url = 'ombCategory')[1].valueCoding.display,
    list_filter(parts, lambda p: p.url = 'text')[1].valueString,
    list_filter(parts, lambda p: p.url = 'ombCategory')[1].valueCoding.code
);
