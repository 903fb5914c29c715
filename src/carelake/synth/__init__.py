"""A seeded synthetic hospital with known truth: FHIR R4 data, true risks and gold spans of the notes."""

from carelake.synth.generation import Summary, generate
from carelake.synth.tables import shifts

__all__ = ["Summary", "generate", "shifts"]
