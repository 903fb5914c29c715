"""Values as of a moment: cohorts, features, point-in-time joins, training sets."""
