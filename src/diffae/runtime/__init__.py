"""This machine: its files, processes, processor, memory and randomness."""
