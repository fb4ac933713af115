"""World Models' training in stages: collect, vision, memory, controller; each resumes where it was interrupted."""
