"""What `gateway serve` says first: where it listens, what it can answer, and a command to try it."""

from gateway import __version__
from gateway.settings.build import Gateway

SHIPPED = ", which comes with the gateway: copy it to ./gateway.yaml to change it"
LOOPBACK = ("127.", "localhost", "::1")


def start_page(gateway: Gateway, file: str, address: tuple[str, int], workers: int) -> str:
    """Return the page.

    Args:
        gateway: what will serve.
        file: the configuration's name.
        address: what the socket is bound to.
        workers: how many processes share it.
    """
    host, port = address[:2]
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 compared, not bound
    shown = f"[{local}]" if ":" in local else local
    url = f"http://{shown}:{port}"
    patterns = [route.name for route in gateway.routes if route.name.endswith("*")]
    model = gateway.routes.names[0] if gateway.routes.names else (patterns[0].replace("*", "…") if patterns else "…")
    lines = [
        "",
        f"  LLM gateway {__version__}    {url}/v1",
        "",
        f"  models      {', '.join([*gateway.routes.names, *patterns]) or 'none'}",
        *([f"  off         {_off(gateway.providers_off)}"] if gateway.providers_off else []),
        f"  chain       {' → '.join(gateway.chain)}",
        f"  config      {file}{SHIPPED if 'shipped' in file else ''} ({gateway.config_id})",
        *([f"  workers     {workers}"] if workers > 1 else []),
        f"  docs        {url}/docs",
        "",
        "  Try it:",
        "",
        f"    curl {url}/v1/chat/completions -H 'content-type: application/json' \\",
        *(["      -H 'authorization: Bearer YOUR_KEY' \\"] if gateway.has_auth else []),
        f"""      -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""",
        "",
    ]
    lines[2:2] = [f"  ! {line}" for line in unreachable(gateway)]
    if not gateway.has_auth and not host.startswith(LOOPBACK):
        lines.insert(2, "  ! Anyone who reaches this machine can spend your keys: add `keys:` and `- use: auth`.")
    if workers > 1 and "limits" in gateway.chain and gateway.store is None:
        lines.insert(2, "  ! Each worker counts limits by itself: set `redis:` to have them counted together.")
    if workers > 1 and gateway.kept_in == "memory":
        lines.insert(2, "  ! Each worker keeps responses by itself: set `database:` to have any of them followed up.")
    return "\n".join(lines)


def unreachable(gateway: Gateway) -> list[str]:
    """Say who cannot be reached as the environment says, and why, once for all whom it is the same for."""
    whom: dict[str, list[str]] = {}
    for name, reason in gateway.astray.items():
        whom.setdefault(reason, []).append(name)
    return [f"{', '.join(names)} cannot be reached: {reason}" for reason, names in whom.items()]


def _off(providers: dict[str, str]) -> str:
    """`openai, groq (no api_key; /health says which variable to set)`, and others with their reason."""
    without_key = [name for name, reason in providers.items() if "api_key is empty" in reason]
    others = [f"{name} ({reason})" for name, reason in providers.items() if name not in without_key]
    keyless = f"{', '.join(without_key)} (no api_key; /health says which variable to set)" if without_key else ""
    return "; ".join(filter(None, [keyless, *others]))
