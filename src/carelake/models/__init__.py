"""Models: train, evaluate, write the card, sign, register, approve."""
