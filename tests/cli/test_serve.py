"""`gateway serve` as people start it: real processes, real signals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter

import click
import httpx
import pytest
from click.testing import CliRunner

from gateway.cli.main import main
from gateway.cli.run import listen
from tests.serving import started

ECHO = "providers: {echo: {}}\nmodels: {echo: echo/echo}\nchain: [{use: metrics}, {use: cost}, {use: retry}]\n"


def ask(url, model="echo", text="Hello", **headers):
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=60)


def models(url):
    return [model["id"] for model in httpx.get(f"{url}/v1/models", trust_env=False, timeout=60).json()["data"]]


def test_without_a_configuration_and_an_account_one_curl_gets_a_completion(tmp_path):
    """The start page's own command, run as it is printed."""
    with started(tmp_path, environment={"HOME": str(tmp_path)}) as gateway:
        gateway.until_ready()
        command = re.search(r"curl .*?'\{.*?\}'", gateway.said, re.DOTALL)[0]
        answer = subprocess.run(["bash", "-c", f"{command} -s"], capture_output=True, text=True, check=True).stdout
        assert '"content":"Hello"' in answer
        assert "openai" in gateway.said and "no api_key" in gateway.said


def test_a_provider_is_on_when_its_usual_variable_is_set(tmp_path):
    """Nothing to configure for those who have an account."""
    with started(tmp_path, environment={"GROQ_API_KEY": "gsk-canary"}) as gateway:
        gateway.until_ready()
        health = httpx.get(f"{gateway.url}/health", trust_env=False, timeout=60).json()
        assert "groq" in health["providers"]["on"] and "openai" in health["providers"]["off"]
        assert "gsk-canary" not in gateway.said + str(health)


def test_a_taken_port_is_told_in_a_sentence(tmp_path):
    """And not in a stack trace."""
    with started(tmp_path) as first:
        first.until_ready()
        port = first.url.rpartition(":")[2]
        again = subprocess.run(
            [sys.executable, "-m", "gateway", "serve", "--port", port], capture_output=True, text=True, timeout=60
        )
    assert again.returncode == 1 and "choose another with --port" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "no..name"])
def test_an_address_that_is_not_this_machines_is_told_with_its_cure(host):
    """Another port would not help. (192.0.2.0/24 is nobody's: RFC 5737.)"""
    with pytest.raises(click.ClickException, match="choose an address of this machine with --host"):
        listen(host, 0)


def test_a_port_that_is_none_is_refused_with_the_range():
    """By the option itself, like one in the file."""
    done = CliRunner().invoke(main, ["serve", "--port", "70000"])
    assert done.exit_code == 2 and "0<=x<=65535" in done.output


def test_it_listens_on_ipv6_and_ipv4_at_once(tmp_path):
    """`::` is every address; a machine without IPv6 says so in a sentence."""
    (tmp_path / "gateway.yaml").write_text(ECHO)
    with started(tmp_path, "--host", "::") as gateway:
        said = gateway.until_said(r"http://\[::1\]:(\d+)/v1|cannot listen on \[::\]:0: \w+")
        if said[1] is None:
            assert gateway.process.wait(60) == 1
            return
        for host in ("[::1]", "127.0.0.1"):
            until_s = time.monotonic() + 60
            while True:
                try:
                    assert ask(f"http://{host}:{said[1]}").json()["choices"][0]["message"]["content"]
                    break
                except httpx.TransportError:
                    assert time.monotonic() < until_s, gateway.said
                    time.sleep(0.02)


def test_a_wrong_configuration_is_told_with_all_its_mistakes(tmp_path):
    """Line, column, path, cure: nothing starts."""
    file = tmp_path / "gateway.yaml"
    file.write_text("modles: {}\nchain:\n  - {use: retry, attempts: 99}\n")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--config", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"{file}:1:1" in done.stderr and 'did you mean "models"' in done.stderr
    assert f"{file}:3:28 chain[0].attempts" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_it_cleanly(tmp_path, workers):
    """Exit status 0, no worker left behind, the port free."""
    (tmp_path / "gateway.yaml").write_text(ECHO)
    with started(tmp_path, "--workers", str(workers)) as gateway:
        gateway.until_ready()
        assert ask(gateway.url).status_code == 200
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        ask(gateway.url)


@pytest.mark.parametrize("how", ["signal", "route", "watch"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_configuration_serves_in_every_worker(tmp_path, how, workers):
    """By SIGHUP, by the admin route, or because the file changed; and a bad file changes nothing and says why."""
    file = tmp_path / "gateway.yaml"
    file.write_text(ECHO)
    with started(tmp_path, "--workers", str(workers), *(["--watch"] if how == "watch" else [])) as gateway:
        gateway.until_ready(workers)
        change(file, ECHO.replace("echo: echo/echo", "other: echo/echo"), how, gateway)
        until(lambda: all(models(gateway.url) == ["other"] for _ in range(4 * workers)))
        change(file, "modles: {}\n", how, gateway, status=400)
        if how != "route":
            gateway.until_said("the old configuration goes on serving")
        assert all(models(gateway.url) == ["other"] for _ in range(4 * workers))


def change(file, text, how, gateway, status=200):
    file.write_text(text)
    if how == "signal":
        gateway.process.send_signal(signal.SIGHUP)
    elif how == "route":
        answer = httpx.post(f"{gateway.url}/admin/reload", trust_env=False, timeout=60)
        assert answer.status_code == status, answer.text
        if status == 400:
            assert "did you mean" in answer.json()["error"]["message"]


def until(what, within_s=60):
    until_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_worker_that_dies_is_replaced(tmp_path):
    """The others go on; the next reload reaches the new one too."""
    (tmp_path / "gateway.yaml").write_text(ECHO)
    with started(tmp_path, "--workers", "2") as gateway:
        gateway.until_ready(2)
        victim = int(re.search(r"worker (\d+) starts", gateway.said)[1])
        os.kill(victim, signal.SIGKILL)
        gateway.until_said(f"worker {victim} ended.*another takes its place")
        until(lambda: len(re.findall(r"worker \d+ starts", gateway.said)) == 3)
        until(lambda: all(_answers(gateway.url) for _ in range(10)))


FULL = '''
"""A middleware that fills the machine up: where there is a file `full`, no process can be started."""

import errno
import os
import pathlib

from gateway.middleware.base import Options

fork = os.fork


def fork_if_there_is_room():
    if pathlib.Path("full").exists():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()


os.fork = fork_if_there_is_room


class FullOptions(Options, frozen=True):
    def build(self, resources):
        return lambda call, next: next(call)
'''


def test_where_no_worker_can_be_started_the_others_go_on(tmp_path):
    """The machine has no room for a process just now: that is no reason to end those that there are."""
    (tmp_path / "full.py").write_text(FULL)
    (tmp_path / "gateway.yaml").write_text(ECHO.replace("chain: [", "chain: [{use: 'full:FullOptions'}, "))
    with started(tmp_path, "--workers", "2") as gateway:
        gateway.until_ready(2)
        (tmp_path / "full").touch()
        victim = int(re.search(r"worker (\d+) starts", gateway.said)[1])
        os.kill(victim, signal.SIGKILL)
        gateway.until_said("no worker can be started.*is tried again")
        until(lambda: all(_answers(gateway.url) for _ in range(10)))
        (tmp_path / "full").unlink()
        until(lambda: len(re.findall(r"worker \d+ starts", gateway.said)) == 3)


NOTES = '''
"""A middleware that writes down what is done with it, and in which process."""

import os

from gateway.middleware.base import Options


def note(what):
    with open("notes", "a") as notes:
        notes.write(f"{what} {os.getpid()}\\n")


class NotesOptions(Options, frozen=True):
    def __post_init__(self):
        note("read")

    def build(self, resources):
        note("built")
        return lambda call, next: next(call)


note("imported")
'''


def test_several_workers_import_and_read_no_more_than_one(tmp_path):
    """The supervisor does it for all: with thousands of keys each would else take as long again as the whole start.

    What a worker serves it builds by itself, so that no two hold the same connection.
    """
    (tmp_path / "notes.py").write_text(NOTES)
    (tmp_path / "gateway.yaml").write_text(ECHO.replace("chain: [", "chain: [{use: 'notes:NotesOptions'}, "))
    with started(tmp_path, "--workers", "3") as gateway:
        gateway.until_ready(3)
        workers = [int(pid) for pid in re.findall(r"worker (\d+) starts", gateway.said)]
        until(lambda: set(workers) <= {pid for pid, _ in noted(tmp_path, "built")})
        supervisor = gateway.process.pid
        assert noted(tmp_path, "imported") == [(supervisor, 1)]
        assert noted(tmp_path, "read") == [(supervisor, 1)]
        assert noted(tmp_path, "built") == [(pid, 1) for pid in sorted([supervisor, *workers])]


def noted(folder, what):
    """Which processes wrote it down, and how often each."""
    pids = [int(line.split()[1]) for line in (folder / "notes").read_text().splitlines() if line.startswith(what)]
    return sorted(Counter(pids).items())


def test_a_worker_that_starts_later_serves_the_newest_configuration_that_is_right(tmp_path):
    """Neither the one of the start nor the broken one that came after it."""
    file = tmp_path / "gateway.yaml"
    file.write_text(ECHO)
    with started(tmp_path, "--workers", "2") as gateway:
        gateway.until_ready(2)
        change(file, ECHO.replace("echo: echo/echo", "other: echo/echo"), "signal", gateway)
        until(lambda: gateway.said.count("serves, in place of") == 2)
        change(file, "modles: {}\n", "signal", gateway)
        gateway.until_said("the old configuration goes on serving")
        for victim in re.findall(r"worker (\d+) starts", gateway.said):
            os.kill(int(victim), signal.SIGKILL)
            gateway.until_said(f"worker {victim} ended.*another takes its place")
        until(lambda: len(re.findall(r"worker \d+ starts", gateway.said)) == 4)
        until(lambda: _answers(gateway.url, "other"))
        assert all(models(gateway.url) == ["other"] for _ in range(8))


def test_nothing_is_left_of_workers_where_they_met(tmp_path):
    """The configuration lay there, with its secrets; nobody else could read it."""
    (tmp_path / "gateway.yaml").write_text(ECHO)
    (place := tmp_path / "tmp").mkdir()
    with started(tmp_path, "--workers", "2", environment={"TMPDIR": str(place)}) as gateway:
        gateway.until_ready(2)
        (folder,) = place.glob("gateway-*")
        assert folder.stat().st_mode & 0o077 == 0
    assert gateway.process.returncode == 0 and not list(place.glob("gateway-*"))


def _answers(url, model="echo"):
    try:
        return ask(url, model).status_code == 200
    except httpx.TransportError:
        return False


def test_metrics_of_all_workers_are_added_up(tmp_path):
    """Whichever worker is scraped, as soon as all have told what they counted."""
    said = 'chat_completions_total{model="echo",outcome="finished",provider="echo"} 20.0'
    (tmp_path / "gateway.yaml").write_text(ECHO)
    with started(tmp_path, "--workers", "3") as gateway:
        gateway.until_ready(3)
        for _ in range(20):
            assert ask(gateway.url).status_code == 200
        url = f"{gateway.url}/metrics"
        until(lambda: all(said in httpx.get(url, trust_env=False, timeout=60).text for _ in range(5)))
