"""SQL drivers: SQLite under SQLCipher, and PostgreSQL."""
