"""One file a table or figure of the paper, and the bench that they share."""
