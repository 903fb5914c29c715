"""SQL over HTTP: statements that run beside the requests, and their results until they expire."""
