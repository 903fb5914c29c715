"""Data sets by recipe: a study's design and groups of features in, a training set with its proof out."""
