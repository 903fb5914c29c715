SELECT * EXCLUDE (percent), coalesce(percent < 8, FALSE) AS numerator FROM diabetes
