"""The lake follows the record: change feed to tables, each change exactly once, and how far it has come."""
