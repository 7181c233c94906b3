"""How the gateway moves."""
