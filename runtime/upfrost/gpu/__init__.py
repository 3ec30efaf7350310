"""From a graph to computed bytes: kernels, plan, tiles, device, and `Upscaler`."""
