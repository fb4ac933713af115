"""What acts on a world model: learned, evolved or planned."""
