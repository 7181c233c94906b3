"""Promises, each a test; laid out as the gateway is."""
