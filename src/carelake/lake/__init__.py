"""Resource versions as table snapshots, and flat views over them."""
