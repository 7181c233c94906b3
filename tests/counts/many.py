"""A configuration as large as a company's: thousands of keys with limits, many models over a few providers."""

import hashlib

VENDORS = 5
ROW = 10
"""Models that fall back on each other; a key may use those of one row."""
CHAIN = (
    "chain: [{use: log}, {use: metrics}, {use: auth}, {use: limits}, {use: cache, ttl: 1h}, {use: cost}, {use: retry}]"
)


def secret(i: int) -> str:
    """The secret of key `i`."""
    return f"gw-secret-{i:032d}"


def many(keys: int, models: int, *, url: str = "http://127.0.0.1:9", more: str = "") -> str:
    """A configuration of `keys` keys with limits, and of `models` models at the upstream at `url`."""
    vendors = [f"  vendor-{i}: {{kind: openai, base_url: {url}/v1, api_key: none}}" for i in range(VENDORS)]
    led = [_model(i) for i in range(models)]
    issued = [_key(i, models) for i in range(keys)]
    return "\n".join(["providers:", *vendors, "models:", *led, "keys:", *issued, CHAIN, more])


def _model(i: int) -> str:
    """In rows of ten, each of which falls back on the next."""
    deployments = ", ".join(
        f"{{target: vendor-{(i + n) % VENDORS}/model-{i}, price: {{prompt: 1, completion: 2}}}}" for n in (0, 1)
    )
    fallbacks = f", fallbacks: [model-{i + 1}]" if i % ROW < ROW - 1 else ""
    return f"  model-{i}: {{deployments: [{deployments}]{fallbacks}}}"


def _key(i: int, models: int) -> str:
    digest = hashlib.sha256(secret(i).encode()).hexdigest()
    allowed = ", ".join(dict.fromkeys(f"model-{(ROW * i + n) % models}" for n in range(ROW)))
    return (
        f"  - {{name: key-{i}, key: sha256:{digest}, team: team-{i % 100}, models: [{allowed}],"
        " limits: {requests_per_minute: 600, tokens_per_minute: 1000000, concurrent: 8}}"
    )
