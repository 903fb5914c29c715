"""Views that are kept as tables: made and kept fresh, and read where that is right."""
