"""The command line. ``main`` declares; the other modules do, and are imported when their command runs."""
