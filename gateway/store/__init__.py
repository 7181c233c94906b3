"""Long memory: what the gateway keeps in an SQL database."""
