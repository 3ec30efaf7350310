"""Training of upfrost's networks: data, networks, losses, the loop, evaluation."""
