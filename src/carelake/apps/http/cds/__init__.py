"""CDS Hooks (https://cds-hooks.hl7.org/2.0/)."""
