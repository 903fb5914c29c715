"""SQL on FHIR (https://build.fhir.org/ig/HL7/sql-on-fhir/): ViewDefinitions over resources and over the lake.

`run` is what most need, `over.over` for the lake. `definition` reads and checks a ViewDefinition, `plan` is the one
intermediate form, `build`, `compiler`, `paths`, `calls` and `texts` make it of a view and its FHIRPath, `duckdb`
and `spark` write it as SQL over native nested columns, `oracle` runs a view with the FHIRPath evaluator in plain
Python: what all others must equal.
"""

from carelake.lake.views.execute import run

__all__ = ["run"]
