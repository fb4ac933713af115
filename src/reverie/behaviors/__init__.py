"""What acts on a world model and learns from it."""
