"""Who, may they, and the one gate."""
