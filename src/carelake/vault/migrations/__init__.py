"""Numbered changes of the schema (Alembic revisions), from the first release on. Never edited once released."""
