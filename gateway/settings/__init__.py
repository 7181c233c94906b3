"""gateway.yaml becomes objects: the composition root, and the only reader of the environment."""
