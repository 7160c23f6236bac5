"""Measuring: metrics as functions, and reports."""
