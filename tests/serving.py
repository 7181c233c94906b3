"""A whole gateway on a real socket, in the test's own loop (`serving`) or as the process users start (`process`)."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from openai import AsyncOpenAI

from gateway.cli.server import config_of
from gateway.settings.live import Live
from gateway.settings.process import Process
from tests.steady import LoopClock

CHAIN = "chain: [{use: metrics}, {use: cost}, {use: retry, first_wait: 10ms, longest_wait: 50ms}]"


class Text:
    """A configuration that a test may edit."""

    name = "gateway.yaml"

    def __init__(self, text: str) -> None:
        self.text = text

    def read(self) -> str:
        return self.text

    def problem(self) -> str:
        return ""


class Serving:
    """A gateway that serves, and what a test wants of it."""

    def __init__(self, url: str, live: Live, config: Text) -> None:
        self.url = url
        self.live = live
        self.config = config
        self.http = httpx.AsyncClient(base_url=url, trust_env=False, timeout=60)
        self._clients: list[AsyncOpenAI] = []

    def openai(self, key: str = "none", **more: object) -> AsyncOpenAI:
        """The official SDK, pointed here and otherwise as it comes."""
        client = AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, **more})  # type: ignore[arg-type]
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Close every client."""
        for client in self._clients:
            await client.close()
        await self.http.aclose()

    async def ask(self, text: str = "Hi", key: str = "", **fields: object) -> httpx.Response:
        """Ask `mock` for a completion; what came of a stream that broke is all there is of it."""
        question = _question(text, key, **fields)
        return await self.post("/v1/chat/completions", question["json"], question["headers"])

    async def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
        """Ask for anything, in the same way."""
        pieces: list[bytes] = []
        async with self.http.stream("POST", path, json=body, headers=headers) as answer:
            with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                async for piece in answer.aiter_bytes():
                    pieces.append(piece)
        return httpx.Response(answer.status_code, headers=answer.headers, content=b"".join(pieces))

    async def stream(self, text: str = "Hi", key: str = "", **fields: object) -> str:
        """Ask `mock` for a stream and return all that came, however it ended."""
        return (await self.ask(text, key, **{**fields, "stream": True})).text

    async def settle(self) -> None:
        """Wait until every call's endings have run, and their lines are written."""
        await self.live.gateway.engine.settle()
        self.live._process.lines.flush()


def _question(text: str, key: str, **fields: object) -> dict[str, Any]:
    """Return the body and headers of a call."""
    body = {"model": "mock", "messages": [{"role": "user", "content": text}], **fields}
    return {"json": body, "headers": {"authorization": f"Bearer {key}"} if key else {}}


def mock_config(upstream_url: str, chain: str = CHAIN, more: str = "") -> str:
    """A configuration with one model, `mock`, at a scripted upstream."""
    return (
        f"providers:\n  mock: {{kind: openai, base_url: {upstream_url}, api_key: upstream-secret}}\n  echo: {{}}\n"
        "models:\n  mock: {deployments: [{target: mock/mock-1, price: {prompt: 1, completion: 2}}]}\n"
        "  echo: echo/echo\n"
        f"{chain}\n{more}"
    )


@contextlib.asynccontextmanager
async def serving(config: str) -> AsyncIterator[Serving]:
    """Serve `config` until the block ends."""
    text = Text(config)
    live = Live(text, Process(LoopClock()))
    server = uvicorn.Server(config_of(live))
    server.config.timeout_graceful_shutdown = 1
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    # Named TCP, for asyncio turns Nagle's algorithm off only then: 40 ms for every answer on a connection used again.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        serve = asyncio.ensure_future(server.serve(sockets=[sock]))
        while not server.started:
            await asyncio.sleep(0.005)
        gateway = Serving(f"http://127.0.0.1:{sock.getsockname()[1]}", live, text)
        try:
            yield gateway
        finally:
            await gateway.close()
            server.should_exit = True
            await serve


class Started:
    """A gateway process, as users start it."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._log = log
        self.url = ""

    @property
    def said(self) -> str:
        """Everything it wrote, to both of its outputs."""
        return self._log.read_text()

    def until_said(self, pattern: str, within_s: float = 60.0) -> "re.Match[str]":
        """Wait until it has written something that matches `pattern`."""
        until_s = time.monotonic() + within_s
        while not (match := re.search(pattern, self.said)):
            assert time.monotonic() < until_s, f"never said {pattern!r}, but:\n{self.said}"
            assert self.process.poll() is None or re.search(pattern, self.said), f"it ended:\n{self.said}"
            time.sleep(0.01)
        return match

    def until_ready(self, workers: int = 1) -> None:
        """Wait until it answers, through every worker."""
        self.url = self.until_said(r"(http://127\.0\.0\.1:\d+)/v1")[1]
        until_s = time.monotonic() + 60  # a machine may have others to serve
        while workers:
            try:
                workers -= httpx.get(f"{self.url}/ready", trust_env=False, timeout=60).status_code == 200
            except httpx.TransportError:
                assert time.monotonic() < until_s, self.said
                time.sleep(0.02)


@contextlib.contextmanager
def started(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, start_new_session: bool = False
) -> Iterator[Started]:
    """Run `gateway serve` with `arguments`, in `folder`, until the block ends."""
    log = folder / "gateway.log"
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**clean, **(environment or {})},
            start_new_session=start_new_session,
            text=True,
        )
    try:
        yield Started(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
