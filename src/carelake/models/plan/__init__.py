"""Change plans: which modifications of a model were agreed on beforehand, and whether a version is one of them."""
