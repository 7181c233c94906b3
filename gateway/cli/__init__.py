"""The door: `gateway serve | check | explain | schema | key`."""
