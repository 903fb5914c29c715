"""The lake as OMOP CDM 5.4 (https://ohdsi.github.io/CommonDataModel/cdm54.html)."""
