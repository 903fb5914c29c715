"""Search over the index tables (https://hl7.org/fhir/R4/search.html), split by its jobs.

compiling   a query becomes a tree of conditions (nodes, columns, links, parts), by ranges of index tables
costs       bounded counts; plan: what leads, and whether rows stream or are gathered; order: sort keys
building    the SQL; lookups, units: what is looked up before it is made
pages       sealed tokens; includes: what comes along; answers: how matches are shown; searches: all together
"""

from carelake.store.search.answers import SearchResult, Shown
from carelake.store.search.searches import COUNT, MAX_COUNT, Searches

__all__ = ["COUNT", "MAX_COUNT", "SearchResult", "Searches", "Shown"]
