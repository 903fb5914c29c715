"""A user's statement: what it may be made of, its bounds, its rows batch by batch, and those that are kept."""
