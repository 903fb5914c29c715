"""A seeded synthetic hospital with known truth: FHIR R4 data, true risks, gold spans; for demos, tests, benchmarks."""

from carelake.synth.generation import Summary, generate
from carelake.synth.tables import shifts

__all__ = ["Summary", "generate", "shifts"]
