"""What a model says of others' decisions, and of images that are not like those that it knows."""
