"""What is done with z_sem: its standardised space, attributes as directions, priors to draw it from."""
