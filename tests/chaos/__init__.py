"""Break things under load and check what every client saw: `make chaos`."""
