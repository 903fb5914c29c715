"""Bulk Data over HTTP (https://hl7.org/fhir/uv/bulkdata/)."""
