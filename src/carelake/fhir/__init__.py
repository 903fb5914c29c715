"""FHIR R4 (4.0.1) as pure functions over parsed JSON: no disk, no permission, no clock.

`definitions` what the standard says a type is; `validate` whether a resource is one; `search` the index values of a
resource and the parameters they are for; `query` a search's text as data; `compartment` whose record a resource
belongs to; `references` links between resources; `bundle` and `outcome` the envelopes of answers; `patch` changes of
a part of a resource; `transactions` several changes at once, as data.
"""
