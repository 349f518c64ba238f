"""`router discover`."""
