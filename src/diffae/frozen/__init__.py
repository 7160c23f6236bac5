"""Networks that are never trained here: those of others, with their genuine weights."""
