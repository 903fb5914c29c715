"""The HTTP door: FHIR read and search, predictions, probes, metrics, OpenAPI and a start page."""
