"""Formats, as pure functions of bytes: what clients and upstreams say and how it is framed."""
