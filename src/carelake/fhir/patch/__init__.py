"""Patches of resources, pure: JSON Patch (RFC 6902) and FHIRPath Patch (https://hl7.org/fhir/R4/fhirpatch.html).

`json_operations` is the one, `path_operations` the other with `places` (where a path leads), `slots` (elements in
their JSON) and `values` (what Parameters bring); `bounds` is how far a patch may go.
`merging` is JSON Merge Patch (RFC 7396).
"""

from carelake.fhir.patch.json_operations import json_patch
from carelake.fhir.patch.merging import merge_patch
from carelake.fhir.patch.path_operations import fhirpath_patch

__all__ = ["fhirpath_patch", "json_patch", "merge_patch"]
