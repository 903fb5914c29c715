"""Views that come with the package: US Core 6.1.0 as flat rows."""
