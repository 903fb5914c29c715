"""Jobs: the functions that steps of a pipeline may name."""
