"""Kernels in Triton, for cards, each beside the PyTorch code that computes the same everywhere else."""
