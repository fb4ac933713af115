"""Optimisers of the Dreamer line."""
