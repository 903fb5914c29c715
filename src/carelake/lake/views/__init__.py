"""SQL on FHIR (https://build.fhir.org/ig/HL7/sql-on-fhir/): ViewDefinitions over resources in memory and over the lake.

`run` and `over` (of `execute`) are what most need. `definition` reads and checks a ViewDefinition, `plan` is the one
intermediate form, `compiler`, `paths`, `calls` and `texts` turn FHIRPath into it, `duckdb` and `spark` write it as SQL over
native nested columns, `oracle` runs a view with the FHIRPath evaluator in plain Python: what all others must equal.
"""

from carelake.lake.views.execute import run

__all__ = ["run"]
