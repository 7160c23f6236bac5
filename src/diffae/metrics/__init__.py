"""Measures of images and of codes, each with its networks and their weights."""
