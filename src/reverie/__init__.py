"""Agents that learn a world model and act by imagining in it."""
