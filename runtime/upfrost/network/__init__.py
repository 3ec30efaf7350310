"""The network as data: its graph, its file, its description, its oracle in NumPy."""
