"""What a card computes by kernels of ours, in Triton, each beside the PyTorch that it takes the place of."""
