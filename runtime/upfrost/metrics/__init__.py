"""How good a result is, and the pages and charts that show it."""
