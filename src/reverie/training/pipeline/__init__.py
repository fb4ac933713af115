"""World Models' training in stages: collect, vision, memory, controller; each goes on where it was interrupted."""
