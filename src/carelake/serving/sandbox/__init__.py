"""Scoring in a process that can reach nothing, and the proof of it that the key ring asks for."""
