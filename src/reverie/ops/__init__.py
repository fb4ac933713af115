"""Pure functions on tensors: the mathematics of the agents, each with a hand-computed test."""
