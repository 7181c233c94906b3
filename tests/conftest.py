from tests.valkey import own_valkey, valkey_url  # noqa: F401
