"""Translators between a client's surface and one upstream's dialect. None of them opens a socket."""
