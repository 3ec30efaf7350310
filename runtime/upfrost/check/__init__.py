"""Everything between a user and an upscaled picture, checked on the device at hand."""
