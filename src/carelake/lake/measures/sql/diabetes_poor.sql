SELECT * EXCLUDE (percent), percent IS NULL OR percent > 9 AS numerator FROM diabetes
