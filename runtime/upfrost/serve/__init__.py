"""A local page and an HTTP interface that upscale what is given to them."""
