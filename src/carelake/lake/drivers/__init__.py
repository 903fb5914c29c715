"""Where the lake's files lie, see `lake.zone`: `sealed` in the vault, or in buckets of `s3` that Spark reads too."""
