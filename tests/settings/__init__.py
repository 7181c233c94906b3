"""How gateway.yaml becomes objects."""
