"""SQL on FHIR over HTTP: running views and queries, exporting them, and the views that are saved."""
