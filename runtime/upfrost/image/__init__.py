"""Picture files in and out, in memory or by rows, one or many."""
