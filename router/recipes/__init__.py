"""Recipes: what to start on a Spark for a model and its kernels, and the fleet file that goes with it."""
