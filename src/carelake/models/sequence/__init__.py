"""A small recurrent model over series of vital signs: gated units in plain numbers, trained and run by numpy."""
