"""What the shapes of a profile's arrays say of its sizes."""
