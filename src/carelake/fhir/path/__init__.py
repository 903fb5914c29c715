"""FHIRPath (https://hl7.org/fhirpath/N1/) with R4's additions: expressions compiled once to closures.

`evaluate` and `compile` are what most need. `lexer` and `parser` read, `compiler` makes closures, `functions` holds
the functions, `model` R4's types, `temporal`, `quantity` and `ucum` the values with rules of their own, `check` the
tests of the strict mode.
"""

from carelake.fhir.path.context import Services, Terminology
from carelake.fhir.path.expression import Expression, compile, evaluate

__all__ = ["Expression", "Services", "Terminology", "compile", "evaluate"]
