"""A gateway process with an upstream of every dialect behind it, and client programs that are asked through it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from tests.clients.environments import NODE
from tests.clients.upstream import PNG, Upstream
from tests.serving import started

T = TypeVar("T")

KEY = "sk-clients-0123456789abcdef"
PROGRAMS = Path(__file__).parent / "programs"
PATIENCE_S = 300
"""The most that one client may take for all its questions."""

CONFIG = """
providers:
  chat: {{kind: openai, base_url: {url}}}
  native: {{kind: openai, vendor: openai, base_url: {url}, api_key: upstream-secret}}
  messages: {{kind: anthropic, base_url: {origin}, api_key: upstream-secret}}
  gemini: {{base_url: {origin}, api_key: upstream-secret}}
  bedrock: {{base_url: {origin}, region: eu-north-1, api_key: upstream-secret}}
  echo: {{}}
models:
  chat/echo: echo/echo
  "chat/*": chat/*
  "native/*": native/*
  "messages/*": messages/*
  "gemini/*": gemini/*
  "bedrock/*": bedrock/*
keys: [{{name: clients, key: {key}}}]
chain: [{{use: log}}, {{use: auth}}, {{use: cost}}, {{use: retry, attempts: 1}}]
"""

QUIET = {
    "DO_NOT_TRACK": "1",
    "OTEL_SDK_DISABLED": "true",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_TELEMETRY": "False",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_AUTOUPDATER": "1",
    "PYTHONUNBUFFERED": "1",
}
"""By which clients keep to themselves; who does not is caught by `Rig.strayed`."""


class Rig:
    """What serves the clients.

    Args:
        url: of the gateway.
        upstream: what stands behind it.
        away: the address of a proxy that leads nowhere.
        strayed: what was asked of that proxy: the first line of each request that was to leave this machine.
    """

    def __init__(self, url: str, upstream: Upstream, away: str, strayed: list[str]) -> None:
        self.url = url
        self.upstream = upstream
        self.strayed = strayed
        self._away = away

    def ask(self, command: Sequence[str], questions: Sequence[Mapping[str, str]], place: Path) -> list[Any]:
        """Ask a client program, and return what it told, question by question."""
        with tempfile.TemporaryDirectory(prefix="gateway-client-", ignore_cleanup_errors=True) as folder:
            home = Path(folder)
            told, said = home / "told.jsonl", home / "said"
            told.touch()
            with said.open("w") as out:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=home,
                    env={**self.environment(home), "TOLD": str(told), "PLACE": str(place), "NODE": str(NODE)},
                    start_new_session=True,
                    text=True,
                )
                try:
                    process.communicate(json.dumps(questions), timeout=PATIENCE_S)
                except subprocess.TimeoutExpired:
                    pass  # what it told until then says more
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            answers = [json.loads(line) for line in told.read_text().splitlines()]
            words = said.read_text()[-4000:]
        assert len(answers) == len(questions), f"{command} ended after {len(answers)} of {len(questions)}:\n{words}"
        return answers

    def environment(self, home: Path) -> dict[str, str]:
        """Return the environment of a client: the way here, and no other that leads anywhere."""
        here = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        away = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self._away)
        return {
            "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "TMPDIR": str(home),
            "LANG": "C.UTF-8",
            "NODE_USE_ENV_PROXY": "1",
            "GATEWAY_URL": self.url,
            "GATEWAY_KEY": KEY,
            "PNG": PNG,
            **QUIET,
            **away,
            **here,
        }


@contextlib.contextmanager
def rig(folder: Path) -> Iterator[Rig]:
    """Serve until the block ends; `folder` holds the configuration and the log."""
    with contextlib.ExitStack() as parts:
        loop = parts.enter_context(_loop_in_a_thread())
        upstream = parts.enter_context(_within(loop, Upstream()))
        strayed: list[str] = []
        nowhere = parts.enter_context(_within(loop, _Nowhere(strayed)))
        config = CONFIG.format(url=upstream.url, origin=upstream.origin, key=KEY)
        (folder / "gateway.yaml").write_text(config)
        gateway = parts.enter_context(started(folder))
        gateway.until_ready()
        yield Rig(gateway.url, upstream, nowhere.url, strayed)


class _Nowhere:
    """A proxy that leads nowhere, and keeps what it was asked."""

    def __init__(self, asked: list[str]) -> None:
        self._asked = asked

    async def __aenter__(self) -> "_Nowhere":
        self._server = await asyncio.start_server(self._refuse, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._server.close()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._asked.append((await reader.readline()).decode("latin-1").strip())
        writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()


@contextlib.contextmanager
def _loop_in_a_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """Run a loop of its own, for servers that serve while a test waits for a process."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def _within(loop: asyncio.AbstractEventLoop, server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Keep a server open, in a loop that runs elsewhere."""
    opened = asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    try:
        yield opened
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result()
