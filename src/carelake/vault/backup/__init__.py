"""Backup and restore (decision record 0023): sealed pieces named by their content, and signed points in time."""
