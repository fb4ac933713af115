"""World models built from the parts of `reverie.nn`."""
