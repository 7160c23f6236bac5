"""The panels of the page, a file each."""
