"""Decisions: values in, values out; no I/O, no clock, no dice, no logging, no framework."""
