"""The page: tables and plots of a run, in the text of `page.md`."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from string import Template

import msgspec
from msgspec import Struct

from bench import plots
from bench.figures import ANY, UNIT, Figure, Sample, Samples, number

OURS = "gateway"
WHOLE, BURST = "whole-1024", "burst-50"
READING = re.compile(
    r"(?<=<!-- reading: by hand, kept when the page is written anew -->\n).*?(?=<!-- /reading -->)", re.S
)
NONE = "–"


class Peer(Struct, frozen=True):
    """What is told of a server that took part."""

    title: str
    given: str


class Run(Struct, frozen=True):
    """A whole run: what `docs/performance/results.json` holds."""

    machine: str
    minutes: float
    servers: dict[str, Peer]
    samples: list[Sample]


class Tables:
    """The tables of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.samples = Samples(run.samples)
        self.servers = [name for name in run.servers if name != "direct"]

    def peers(self) -> str:
        """What each was given."""
        given = [(peer.title, peer.given) for peer in self.run.servers.values() if peer.given]
        return table(["server", "what it was given"], given)

    def cpu(self) -> str:
        """CPU per call."""
        head = ["server", "CPU µs a whole call", "× nginx", "calls/s a core", "CPU µs a streamed call", "× nginx"]
        return self._by_server(
            head,
            lambda name: [
                self._figure("cpu", name, WHOLE, "cpu_us"),
                self._ratio("cpu", name, WHOLE, "cpu_us"),
                self._figure("cpu", name, WHOLE, "calls_per_core_s"),
                self._figure("cpu", name, BURST, "cpu_us"),
                self._ratio("cpu", name, BURST, "cpu_us"),
            ],
        )

    def latency(self) -> str:
        """Added latency at fixed rates."""
        rows: list[list[str]] = []
        for rate in self.samples.cases("latency", "direct"):
            for name in ("direct", *self.servers):
                if rate in self.samples.cases("latency", name):
                    how = self._figure if name == "direct" else self._added
                    cells = [how("latency", name, rate, metric, 1e-3) for metric in ("p50", "p99", "p999")]
                    rows.append([rate, self._title(name), *cells])
        return table(["calls/s", "server", "p50, ms", "p99, ms", "p99.9, ms"], rows)

    def streams(self) -> str:
        """Streams with the pace of a model."""
        rows: list[list[str]] = []
        for count in self.samples.cases("streams", "direct"):
            for name in ("direct", *self.servers):
                if count not in self.samples.cases("streams", name):
                    continue
                how = self._figure if name == "direct" else self._added
                cells = [how("streams", name, count, metric, 1e-3) for metric in ("ttft_p50", "ttft_p99")]
                cells += [self._figure("streams", name, count, metric, 1e-3) for metric in ("lag_p50", "lag_p99")]
                cost = [NONE, NONE]
                if name != "direct":
                    cost = [how("streams", name, count, "cpu_us") for how in (self._figure, self._ratio)]
                rows.append([count, self._title(name), *cells, *cost])
        head = ["streams", "server", "first token p50, ms", "p99, ms", "event lag p50, ms", "p99, ms"]
        return table([*head, "CPU µs an event", "× nginx"], rows)

    def memory(self) -> str:
        """Memory and starts."""
        head = [
            "server",
            "idle, MB",
            "loaded, MB",
            "soaked, MB",
            "calls of the soak",
            "first answer after, s",
            "import, s",
        ]
        return self._by_server(
            head,
            lambda name: [
                *(self._figure("memory", name, ANY, f"{when}_mb") for when in ("idle", "loaded", "soaked")),
                self._figure("memory", name, ANY, "soak_calls"),
                self._figure("start", name, "first", "start_s"),
                self._figure("start", name, "import", "import_s"),
            ],
        )

    def sweep(self, scenario: str, what: str) -> str:
        """CPU per call by one thing that grows."""
        others = [name for name in self.samples.servers(scenario) if name != UNIT]
        head = [what, "nginx, µs"]
        for name in others:
            head += [f"{self.run.servers[name].title}, µs", "× nginx"]
        rows: list[list[str]] = []
        for case in self.samples.cases(scenario, OURS):
            cells = [label(case), self._figure(scenario, UNIT, case, "cpu_us")]
            for name in others:
                cells += [how(scenario, name, case, "cpu_us") for how in (self._figure, self._ratio)]
            rows.append(cells)
        return table(head, rows)

    def names(self) -> str:
        """Keys and models."""
        rows = [
            [
                label(case),
                self._figure("names", OURS, case, "cpu_us"),
                self._ratio("names", OURS, case, "cpu_us"),
                self._figure("names", OURS, case, "start_s"),
                self._figure("names", OURS, case, "idle_mb"),
            ]
            for case in self.samples.cases("names", OURS)
        ]
        return table(
            ["keys, and as many models", "CPU µs a call", "× nginx", "first answer after, s", "idle, MB"], rows
        )

    def workers(self) -> str:
        """Processes."""
        rows = [
            [
                self._title(name),
                count,
                self._figure("workers", name, count, "cpu_us"),
                self._figure("workers", name, count, "calls_per_s"),
            ]
            for name in (UNIT, OURS)
            for count in self.samples.cases("workers", name)
        ]
        return table(["server", "processes", "CPU µs a call", "calls/s"], rows)

    def instruments(self) -> str:
        """What the bench itself costs, in words."""
        upstream = self.samples.figure("cpu", UNIT, WHOLE, "upstream_us")
        late = [self.samples.figure("latency", "direct", rate, "late_p99") for rate in self._rates()]
        worst = max((figure.median for figure in late if figure), default=0.0)
        return (
            f"Behind nginx the upstream cost {shown(upstream)} µs a call; without a proxy, the load generator sent 99\n"
            f"  of 100 calls within {number(worst)} µs of the moment they were due, at every rate."
        )

    def _rates(self) -> list[str]:
        return self.samples.cases("latency", "direct")

    def _by_server(self, head: list[str], cells: Callable[[str], list[str]]) -> str:
        return table(head, ([self._title(name), *cells(name)] for name in self.servers))

    def _title(self, name: str) -> str:
        title = self.run.servers[name].title
        return f"**{title}**" if name == OURS else title

    def _figure(self, scenario: str, name: str, case: str, metric: str, unit: float = 1.0) -> str:
        return shown(self.samples.figure(scenario, name, case, metric), unit)

    def _ratio(self, scenario: str, name: str, case: str, metric: str) -> str:
        return shown(self.samples.ratio(scenario, name, case, metric))

    def _added(self, scenario: str, name: str, case: str, metric: str, unit: float = 1.0) -> str:
        return shown(self.samples.added(scenario, name, case, metric), unit)


def shown(figure: Figure | None, unit: float = 1.0) -> str:
    """Write a figure, in another unit, or a dash for none."""
    return NONE if figure is None else str(Figure(figure.median * unit, figure.low * unit, figure.high * unit))


def label(case: str) -> str:
    """Write a case: large numbers with their thousands apart."""
    return f"{int(case):,}" if case.isdigit() else case


def table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table; a column that holds nothing is left out."""
    full = [list(row) for row in rows]
    kept = [i for i in range(len(head)) if any(row[i] != NONE for row in full)] or list(range(len(head)))
    lines = [[head[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in full)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(run: Run) -> str:
    """Return the one page that a quick run prints."""
    tables = Tables(run)
    return "\n\n".join([run.machine, tables.cpu(), tables.latency(), tables.streams(), tables.memory()])


def write(run: Run, docs: Path) -> None:
    """Write the page and its plots below `docs`; what stands under *Reading* is kept."""
    page, tables = docs / "performance.md", Tables(run)
    folder = docs / "performance"
    folder.mkdir(exist_ok=True)
    for name, picture in plots.pictures(run.servers, tables.samples).items():
        (folder / f"{name}.svg").write_text(picture)
    text = Template((Path(__file__).parent / "page.md").read_text()).substitute(
        machine=run.machine,
        minutes=number(run.minutes),
        instruments=tables.instruments(),
        peers=tables.peers(),
        cpu=tables.cpu(),
        latency=tables.latency(),
        streams=tables.streams(),
        memory=tables.memory(),
        concurrency=tables.sweep("concurrency", "calls under way, at saturation"),
        waiting=tables.sweep("waiting", "calls under way, at 500 calls/s"),
        sent=tables.sweep("sent", "bytes sent"),
        answered=tables.sweep("answered", "bytes answered"),
        middlewares=tables.sweep("middlewares", "middlewares"),
        names=tables.names(),
        stores=tables.sweep("stores", "limits, cache and record in"),
        workers=tables.workers(),
    )
    if page.exists() and (kept := READING.search(page.read_text())):
        text = READING.sub(lambda _: kept[0], text)
    page.write_text(text)


def load_results(file: Path) -> Run:
    """Read what `save_results` wrote."""
    return msgspec.json.decode(file.read_bytes(), type=Run)


def save_results(run: Run, file: Path) -> None:
    """Write a run, one sample a line, so that two runs can be compared by `git diff`."""
    head = msgspec.json.encode(Run(run.machine, run.minutes, run.servers, [])).decode()
    lines = ",\n".join(msgspec.json.encode(sample).decode() for sample in run.samples)
    file.parent.mkdir(exist_ok=True)
    file.write_text(head.replace('"samples":[]', f'"samples":[\n{lines}\n]') + "\n")
