"""Tables as Iceberg has them: the catalog, the zone of their files, how they are laid out, and commits."""
