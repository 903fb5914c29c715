"""What runs over the lake's rows: DuckDB in this process, shards of patients in many, Spark on a cluster."""
