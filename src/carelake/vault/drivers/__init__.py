"""Drivers of the ports that the vault owns, one module for each place where things can lie."""
