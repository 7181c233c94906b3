"""Clients that others wrote, unmodified, against a gateway process: what works, as `docs/clients.md` tells."""
