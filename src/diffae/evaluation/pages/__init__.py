"""Pages, tables and figures that show what was measured."""
