"""Use cases that need what the floors below know together."""
