"""The agents: one file each, a configuration and the composition of parts that it describes."""
