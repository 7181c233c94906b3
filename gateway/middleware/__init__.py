"""The rooms of the chain. Each file holds one: its options, as written in gateway.yaml, and what it does."""
