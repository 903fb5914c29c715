"""Nouns, errors, ids, clock, canonical JSON, settings: what every room may lean on."""
