"""Rooms of the chain."""
