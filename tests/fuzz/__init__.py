"""Random input against what must hold for all of it: `make fuzz`, and a little of it in `make test`."""
