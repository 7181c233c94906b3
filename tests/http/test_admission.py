"""Who is let in, who waits, who is refused: the admission by itself, in a loop whose time passes at once."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.call import Headers
from gateway.core.errors import Overloaded
from gateway.http import admission as subject
from gateway.http.admission import Admission, caller_of
from gateway.http.requests import LARGE_BODY
from gateway.settings.schema import Server
from tests.standins import hastily


class Client:
    """One request: what it is told, and when it ends or leaves."""

    def __init__(self, key="anyone", body=(b"{}",)):
        self.headers = Headers({b"x-api-key": key.encode(), b"content-length": b"2"})
        self.said = asyncio.Queue()
        for i, piece in enumerate(body):
            self.said.put_nowait({"type": "http.request", "body": piece, "more_body": i < len(body) - 1})
        self.told = []
        self.heard = b""
        self.served = False
        self.done = asyncio.Event()

    @property
    def status(self):
        return self.told[0] if self.told else None

    def leave(self):
        self.said.put_nowait({"type": "http.disconnect"})

    async def receive(self):
        return await self.said.get()


class House:
    """An admission, and an app behind it that serves a client until it is done."""

    def __init__(self, **limits):
        self.admission = Admission(Server(**limits))
        self.served = []
        self.most = 0
        self.tasks = []

    async def serve(self, client, receive):
        client.served = True
        self.served.append(client)
        self.most = max(self.most, self.admission.under_way)
        while (message := await receive())["type"] == "http.request":
            client.heard += message["body"]
            if not message["more_body"]:
                break
        await client.done.wait()

    def comes(self, client):
        self.tasks.append(asyncio.ensure_future(self.take(client)))
        return client

    async def take(self, client):
        """Let a client in and serve it, as the edge does."""
        receive = client.receive
        if not self.admission.enter():
            try:
                receive = await self.admission.let_in(client.headers, receive)
            except Overloaded as error:
                client.told.append(error.status)
                return
            if receive is None:
                return
        try:
            await self.serve(client, receive)
        finally:
            self.admission.leave()

    async def come(self, *keys):
        clients = [self.comes(Client(key)) for key in keys]
        await rest()
        return clients

    @property
    def counts(self):
        return self.admission.under_way, self.admission.waiting


async def rest():
    """Let everything happen that can happen now."""
    for _ in range(10):
        await asyncio.sleep(0)


async def finish(*clients):
    for client in clients:
        client.done.set()
        await rest()


def test_who_need_not_wait_does_not(monkeypatch):
    """The healthy path: no task, no future, no digest; not even an event loop."""
    monkeypatch.setattr(subject, "caller_of", None)
    admission = Admission(Server(max_calls=1))
    assert admission.enter() and admission.under_way == 1 and not admission.enter()
    admission.leave()
    assert admission.under_way == 0 and admission.enter()


def test_callers_take_turns():
    """Whoever fills the queue is served no sooner than who asks once, and of one caller the first comes first."""

    async def story():
        house = House(max_calls=1)
        first, *flood = await house.come(*"aaaaa")
        other, third = await house.come(*"bc")
        await finish(first, flood[0], other, third, *flood[1:])
        assert house.served == [first, flood[0], other, third, *flood[1:]]
        assert (house.most, house.counts) == (1, (0, 0))

    hastily(story())


def test_a_full_queue_makes_room_for_a_caller_with_fewer():
    """At the cost of the newest call of the caller with the most; those it would only change places with stay."""

    async def story():
        house = House(max_calls=1, queue=3)
        first, *flood = await house.come(*"aaaaa")
        assert [client.status for client in flood] == [None, None, None, 503]
        others = await house.come(*"bbacd")
        assert [client.status for client in flood] == [None, 503, 503, 503]
        assert [client.status for client in others] == [None, 503, 503, None, 503]
        assert house.counts == (1, 3)
        await finish(first, flood[0], others[0], others[3])
        assert house.served == [first, flood[0], others[0], others[3]] and house.counts == (0, 0)

    hastily(story())


def test_nobody_waits_longer_than_the_wait():
    """Nor less, and the place in the queue is free again."""

    async def story():
        house = House(max_calls=1, queue=1, queue_wait=5)
        (first, late), loop = await house.come("a", "b"), asyncio.get_running_loop()
        began_s = loop.time()
        await house.tasks[1]
        assert 4.9 < loop.time() - began_s < 5.5
        assert (late.status, late.served, house.counts) == (503, False, (1, 0))
        await finish(first)
        assert house.counts == (0, 0)

    hastily(story())


def test_without_a_queue_nobody_waits(monkeypatch):
    """`queue: 0`: the answer is no, and nobody is asked who they are for it."""
    monkeypatch.setattr(subject, "caller_of", None)

    async def story():
        house = House(max_calls=1, queue=0)
        first, second = await house.come("a", "b")
        assert (second.status, house.counts) == (503, (1, 0))
        await finish(first)

    hastily(story())


def test_who_leaves_frees_its_place_at_once():
    """Its place is another's, and its turn never comes."""

    async def story():
        house = House(max_calls=1, queue=1)
        first, leaver = await house.come("a", "b")
        leaver.leave()
        await rest()
        assert house.counts == (1, 0) and leaver.told == []
        (last,) = await house.come("b")
        await finish(first, last)
        assert house.served == [first, last] and house.counts == (0, 0)

    hastily(story())


@pytest.mark.parametrize("turn_came", [False, True])
def test_who_is_stopped_while_it_waits_keeps_nothing(turn_came):
    """Not even in the moment in which its turn has come and it does not know yet."""

    async def story():
        house = House(max_calls=1)
        first, stopped = await house.come("a", "b")
        if turn_came:
            first.done.set()
            await asyncio.sleep(0)
        assert house.counts == ((1, 0) if turn_came else (1, 1)) and not stopped.served
        house.tasks[1].cancel()
        await finish(first)
        assert house.counts == (0, 0) and not stopped.served

    hastily(story())


def test_other_limits_hold_at_once():
    """More room: who waits comes in. Less: nobody is turned out, and nobody comes in before there is room."""

    async def story():
        house = House(max_calls=1)
        clients = await house.come(*"abcd")
        house.admission.follow(Server(max_calls=3))
        await rest()
        assert house.counts == (3, 1)
        house.admission.follow(Server(max_calls=1, queue=0))
        await finish(*clients[:2])
        assert house.counts == (1, 1)
        assert (await house.come("e"))[0].status == 503
        await finish(*clients[2:])
        assert house.counts == (0, 0) and house.served == clients

    hastily(story())


def test_what_a_client_says_while_it_waits_is_kept_for_its_call():
    """In order, once; and of an endless body no more than is worth keeping for someone who may be refused."""

    async def story():
        house = House(max_calls=1)
        (first,) = await house.come("a")
        pieces = [bytes([i]) * 10_000 for i in range(30)]
        large = house.comes(Client("b", pieces))
        await rest()
        assert large.said.qsize() >= len(pieces) - LARGE_BODY // 10_000 - 1
        small = house.comes(Client("c", [b"{", b"}"]))
        await finish(first, large, small)
        assert (large.heard, small.heard) == (b"".join(pieces), b"{}")

    hastily(story())


def test_refusals_are_logged_once_a_second(caplog):
    """A line for each would be a second flood; none is left out of the count."""

    async def story():
        house = House(max_calls=1, queue=0)
        await house.come("a")
        for n in (100, 1):
            await house.come(*"b" * n)
            await asyncio.sleep(1.5)
        house.tasks[0].cancel()

    hastily(story())
    assert [message.partition(" calls")[0] for message in caplog.messages] == ["overload: 100", "overload: 1"]


def test_a_caller_is_known_by_its_credential_and_does_not_show_it():
    """By whichever header it came; the digest is worth nothing to who finds it in memory."""
    bearer, azure, other = (
        caller_of(Headers(headers))
        for headers in ({b"authorization": b"Bearer sk-1"}, {b"api-key": b"sk-1"}, {b"api-key": b"sk-2"})
    )
    assert bearer == azure != other and b"sk-1" not in bearer


DEEDS = st.sampled_from(["comes", "ends", "leaves", "is stopped", "waits", "more", "less"])


@settings(max_examples=150)
@given(st.lists(st.tuples(DEEDS, st.integers(0, 7)), max_size=60))
def test_whatever_happens_no_place_is_lost(deeds):
    """Never more than may, nobody waits while there is room, and in the end everything is free."""
    hastily(any_story(deeds))


async def any_story(deeds):
    house, clients, limits = House(max_calls=3, queue=3), [], Server(max_calls=3, queue=3)
    for deed, who in deeds:
        client = clients[who % len(clients)] if clients else None
        match deed:
            case "comes":
                clients.append(house.comes(Client("abcd"[who % 4])))
            case "ends" if client:
                client.done.set()
            case "leaves" if client:
                client.leave()
            case "is stopped" if client:
                house.tasks[clients.index(client)].cancel()
            case "waits":
                await asyncio.sleep(who)
            case "more" | "less":
                limits = Server(max_calls=4 if deed == "more" else 1, queue=3)
                house.admission.follow(limits)
        if who % 2:  # or several things happen at the same time
            await rest()
            under_way, waiting = house.counts
            assert waiting <= limits.queue and (under_way >= limits.max_calls or not waiting)
    assert house.most <= 4
    for client in clients:
        client.done.set()
    await asyncio.sleep(30)
    assert house.counts == (0, 0) and all(task.done() for task in house.tasks)
    assert len(asyncio.all_tasks()) == 1
