"""Work for more than one machine, by Dask's `distributed`."""
