"""Steps, plans, runs, resume; recipes are data."""
