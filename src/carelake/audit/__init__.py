"""Append-only acts, sealed segments, and lineage read from them."""
