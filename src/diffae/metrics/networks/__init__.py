"""Networks that measures stand on, and their genuine weights."""
