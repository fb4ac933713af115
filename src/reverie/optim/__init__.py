"""Optimizers of the Dreamer line."""
