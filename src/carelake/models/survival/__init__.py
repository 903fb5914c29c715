"""Time to an event, with censoring: hazards of short intervals by boosted trees, judged with censoring weights."""
