"""The server of one process: uvicorn, stopped in our way.

A stop has three parts, each with an end:

1. `server.shutdown_delay`: calls are taken as ever, while `/ready` says 503 and every answer closes its connection, so
   that whoever spreads load has noticed before anybody is refused.
2. `server.drain`: nobody new is let in (a refused connection is the one failure that every balancer asks elsewhere
   for), and what runs is finished. Who asks on a connection that was open is answered. Then what still runs is cut.
3. `ENDINGS_S`: the calls' endings run and their records are written. Then the process ends, whatever is left.

uvicorn's own stop closes idle connections at once, which resets whoever was about to ask on one.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Generator

import uvicorn

from gateway.cli.door import Door
from gateway.http.app import make_app
from gateway.http.protocol import ClientProtocol
from gateway.settings.live import Live

log = logging.getLogger("gateway")

KEEP_ALIVE_S = 75
"""Longer than a load balancer's (60 s): whoever closes an idle connection, it should not be us."""
LINGER_S = 0.5
"""How long all must be quiet before idle connections are closed: a busy client's next request is on its way."""
TOLD_S = 1.0
"""How long clients whose calls were cut may take to be told."""
ENDINGS_S = 12.0
"""How long what must be written may take when no call runs any more; 10.5 s of it are the database's."""
LEFTOVERS_S = 3.0
"""How long tasks and threads, a plugin's among them, may take to end after that; then the process ends without them."""
LOOK_EVERY_S = 0.02


def config_of(live: Live) -> uvicorn.Config:
    """Return how uvicorn serves the configuration that `live` holds."""
    return uvicorn.Config(
        make_app(live),
        interface="asgi3",
        http=ClientProtocol,
        ws="none",
        proxy_headers=False,  # nothing goes by the client's address, but that operators are on this very machine
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )


class Server(uvicorn.Server):
    """Serves the configuration that `live` holds, until told to stop; then `serve` returns, with no error.

    (uvicorn would raise the signal again, and the process would exit with it instead of 0.)
    """

    def __init__(self, live: Live, door: Door | None = None) -> None:
        """Make one.

        Args:
            live: the configuration.
            door: where it lets clients in that other workers may let in too; `None`: there are none.
        """
        super().__init__(config_of(live))
        self._live = live
        self._door = door
        self._delay_s: float = live.gateway.server.shutdown_delay
        self._drain_s: float = live.gateway.server.drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup([] if self._door is not None else sockets)
        if self._door is not None:
            self._door.open(self._protocol, lambda: len(self.server_state.connections))

    def _protocol(self) -> asyncio.Protocol:
        return ClientProtocol(self.config, self.server_state, self.lifespan.state)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second, tell the other workers how many clients have left."""
        if self._door is not None and not self.should_exit:
            self._door.tell()
        return await super().on_tick(counter)

    def stop(self) -> None:
        """Drain; asked again, cut."""
        if self._live.draining:
            self.cut()
        else:
            self.drain()

    def drain(self) -> None:
        """Finish what runs, then stop; asked again, go on with that."""
        if not self._live.draining:
            self._live.draining = True
            if under_way := len(self.server_state.tasks):
                most_s = self._delay_s + self._drain_s
                told = "stopping: %d calls under way, at most %g s; a second signal cuts them"
                log.info(told, under_way, most_s)
            asyncio.get_running_loop().call_later(self._delay_s, self._leave)

    def cut(self) -> None:
        """Stop, and wait for no call any more."""
        self._live.draining = self.should_exit = self.force_exit = True

    def _leave(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let nobody in any more, finish what runs or cut it, and write what is to be written."""
        await asyncio.sleep(0)  # who waits in line at the door came before: the event loop lets them in first
        if self._door is not None:
            await self._door.close()
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        if not await self._finished():
            await self._cut_calls()
        try:
            async with asyncio.timeout(ENDINGS_S):
                await self.lifespan.shutdown()
        except TimeoutError:
            log.error("at the stop, what was still to be written took longer than %g s, and was left", ENDINGS_S)

    async def _finished(self) -> bool:
        """Wait until every call is answered and every connection closed; return whether it was so in time."""
        loop, state = asyncio.get_running_loop(), self.server_state
        busy_s = loop.time()
        until_s = busy_s + self._drain_s
        while state.tasks or state.connections:
            now_s = loop.time()
            if self.force_exit or now_s >= until_s:
                return False
            if state.tasks:
                busy_s = now_s
            elif now_s - busy_s >= LINGER_S:
                for connection in list(state.connections):
                    connection.shutdown()
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    async def _cut_calls(self) -> None:
        """End every call that still runs, and give it the time to say so."""
        if tasks := list(self.server_state.tasks):
            log.warning("at the stop, %d calls were cut", len(tasks))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=TOLD_S)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals to the loop's handlers."""
        yield
