"""Drivers of online stores (`features.groups.stores`)."""
