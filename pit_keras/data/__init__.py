"""Images: where they come from, what happens to them, and in which order they reach the model."""
