"""The bench on made-up figures: no server, no compiler, no registry, and no clock."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from bench import report
from bench.__main__ import parse
from bench.figures import ANY, Figure, Sample, Samples, number
from bench.measure import written
from bench.servers import CHAIN, Server, gateway_config, write_config


def samples_of(scenario, case, metric, **values):
    """A sample of each round of each server."""
    return [
        Sample(scenario, server, case, metric, round, float(value))
        for server, rounds in values.items()
        for round, value in enumerate(rounds)
    ]


@pytest.fixture
def run():
    """A whole run in small: every scenario, two rounds."""
    samples = [
        *samples_of("cpu", "whole-1024", "cpu_us", nginx=[20, 40], gateway=[100, 220], envoy=[60, 80]),
        *samples_of("cpu", "burst-50", "cpu_us", nginx=[50, 50], gateway=[150, 150]),
        *samples_of("cpu", "whole-1024", "upstream_us", nginx=[7, 7]),
        *samples_of("streams", "20", "ttft_p50", direct=[60_100, 60_300], nginx=[60_200, 60_400]),
        *samples_of("memory", ANY, "idle_mb", nginx=[10], gateway=[58.25]),
        *samples_of("names", "10000", "cpu_us", nginx=[20, 20], gateway=[110, 110]),
    ]
    for rate in ("30", "1000"):
        samples += samples_of("latency", rate, "p50", direct=[50, 60], nginx=[80, 90], gateway=[350, 380])
        samples += samples_of("latency", rate, "p99", direct=[90, 90], gateway=[900, 990])
        samples += samples_of("latency", rate, "late_p99", direct=[30, 30])
    for scenario in ("concurrency", "waiting", "sent", "answered", "middlewares"):
        for case in ("1", "64"):
            samples += samples_of(scenario, case, "cpu_us", nginx=[20, 21], gateway=[100, 104])
    titles = {"direct": "no proxy", "nginx": "nginx 1.2", "gateway": "this gateway", "envoy": "Envoy <1.4>"}
    return report.Run("a machine", 9.5, {n: report.Peer(title, "") for n, title in titles.items()}, samples)


def test_the_command_has_a_quick_form_and_one_that_only_writes():
    """They exclude each other: a quick run is no page."""
    assert (parse([]).quick, parse([]).render) == (False, False)
    assert parse(["--quick"]).quick and parse(["--render"]).render
    with pytest.raises(SystemExit):
        parse(["--quick", "--render"])


def test_ratios_are_of_pairs():
    """The second round ran at half the speed: the ratio of the medians would be 5.33, of the pairs it is 5.25."""
    samples = Samples(samples_of("cpu", "x", "cpu_us", nginx=[20, 40], gateway=[100, 220]))
    assert samples.ratio("cpu", "gateway", "x", "cpu_us") == Figure(5.25, 5.0, 5.5)
    assert samples.ratio("cpu", "nginx", "x", "cpu_us") == Figure(1.0, 1.0, 1.0)
    assert samples.ratio("cpu", "nobody", "x", "cpu_us") is None


def test_a_round_that_only_one_of_a_pair_has_is_left_out():
    """A slow server has fewer rounds; and a round may have been measured of one of them only."""
    samples = Samples(samples_of("cpu", "x", "cpu_us", nginx=[20], litellm=[20_000, 90_000]))
    assert samples.ratio("cpu", "litellm", "x", "cpu_us") == Figure(1000, 1000, 1000)


def test_what_a_proxy_adds_is_told_without_the_upstream():
    """Of the same round again."""
    samples = Samples(samples_of("latency", "30", "p50", direct=[50, 60], gateway=[350, 380]))
    assert samples.added("latency", "gateway", "30", "p50") == Figure(310, 300, 320)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0123, "0.01"), (3.14159, "3.14"), (31.4159, "31.4"), (314.159, "314"), (3141.59, "3,140"), (31415.9, "31,400")],
)
def test_numbers_have_the_digits_that_count(value, said):
    """Three are more than repeats of a measurement agree on."""
    assert number(value) == said


def test_a_figure_shows_its_range():
    """A median alone looks surer than it is."""
    assert str(Figure.of([3, 1, 2])) == "2.00 (1.00–3.00)"
    assert str(Figure.of([2])) == "2.00"
    assert Figure.of([]) is None


def test_the_page_says_what_was_measured(run, tmp_path):
    """Our row is bold; a server that was not measured somewhere has a dash there."""
    report.write(run, tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "| **this gateway** | 160 (100–220) | 5.25 (5.00–5.50) |" in page
    assert "| Envoy <1.4> | 70.0 (60.0–80.0) | 2.50 (2.00–3.00) | – | – |" in page
    assert "| 1000 | **this gateway** | 0.31 (0.30–0.32) |" in page
    assert "| 20 | no proxy | 60.2 (60.1–60.3) |" in page
    assert "| 10,000 | 110 | 5.50 |" in page
    assert "a machine" in page and "9.50 minutes" in page
    assert "$" not in page and "None" not in page


def test_every_plot_that_the_page_shows_is_there_and_is_svg(run, tmp_path):
    """Titles are text: one may hold what XML reserves."""
    report.write(run, tmp_path)
    page = (tmp_path / "performance.md").read_text()
    shown = [line.partition("(")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert sorted(shown) == sorted(f"performance/{file.name}" for file in (tmp_path / "performance").iterdir())
    for file in shown:
        picture = ET.fromstring((tmp_path / file).read_text())
        assert picture.tag.endswith("svg") and len(picture) > 4


def test_what_was_written_by_hand_is_kept(run, tmp_path):
    """Conclusions are a person's; figures are written over."""
    report.write(run, tmp_path)
    page = tmp_path / "performance.md"
    first = page.read_text()
    page.write_text(
        first.replace("<!-- /reading -->", "We lose at 1 KB, by \\1 µs.\n<!-- /reading -->").replace("160", "7")
    )
    report.write(run, tmp_path)
    again = page.read_text()
    assert "We lose at 1 KB, by \\1 µs.\n<!-- /reading -->" in again
    assert again.replace("We lose at 1 KB, by \\1 µs.\n", "") == first


def test_a_page_can_be_written_from_kept_results(run, tmp_path):
    """So that a word in it can be changed without ten minutes of load."""
    file = tmp_path / "results.json"
    report.save_results(run, file)
    assert report.load_results(file) == run
    assert len(file.read_text().splitlines()) == len(run.samples) + 2


def test_the_quick_table_leaves_out_what_was_not_measured(run):
    """An empty column says nothing."""
    said = report.summary(run)
    assert "idle, MB" in said and "soaked" not in said and "p99.9" not in said


@pytest.mark.parametrize("spread", [0, 1000])
def test_a_request_is_whole_and_asks_for_what_it_should(spread):
    """Its marks are there for the load generator to fill in, each time with a number as long."""
    head, _, body = written(Named(), "whole-1024", 2048, spread).partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert len(body) == 2048 and body.count(b"#" * 16) == 1
    assert head.count(b"@@@@@@@@") == body.count(b"@@@@@@@@") == (1 if spread else 0)


class Named(Server):
    """A server that is never started."""

    def __init__(self):
        pass


@pytest.mark.parametrize("middlewares", [1, len(CHAIN), 25])
def test_what_ours_is_given_is_a_configuration(middlewares, tmp_path):
    """With as many middlewares as were asked for, and nothing that `gateway check` would refuse."""
    text = gateway_config(9, names=3, middlewares=middlewares)
    assert text.count("  - use: ") == middlewares
    check = [sys.executable, "-m", "gateway", "check", write_config(tmp_path, text)]
    checked = subprocess.run(check, capture_output=True, text=True, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
