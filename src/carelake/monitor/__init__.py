"""Monitor: what inputs and risks looked like in training, and whether they still do."""
