"""Where the lake's files lie, see `iceberg.zone`: `sealed` in the vault, or in `s3` buckets that Spark reads too."""
