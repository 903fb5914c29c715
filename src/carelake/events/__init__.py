"""The transactional outbox of CloudEvents, and those who follow it."""
