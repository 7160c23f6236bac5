"""Training: one loop for everything that has a loss."""
