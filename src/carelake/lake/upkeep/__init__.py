"""What keeps the tables small and right: merging, thinning of snapshots, taking rows out."""
