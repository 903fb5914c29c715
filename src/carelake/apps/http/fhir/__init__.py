"""The FHIR interactions and operations, a module each (https://hl7.org/fhir/R4/http.html)."""
