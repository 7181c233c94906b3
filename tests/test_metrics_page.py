"""What docs/metrics.md says of the metrics is what there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs/metrics.md").read_text()
LIST = """
import importlib, json, pkgutil
import gateway
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

for module in pkgutil.walk_packages(gateway.__path__, "gateway."):
    if module.name != "gateway.__main__":
        importlib.import_module(module.name)
ours = [it for it in REGISTRY._collector_to_names if isinstance(it, MetricWrapperBase)]
print(json.dumps({it._name + "_total" * (it._type == "counter"): [it._type, *it._labelnames] for it in ours}))
"""


def test_the_page_has_every_metric_with_its_labels():
    """Dashboards are made from it. A process of its own, for other tests have metrics of theirs."""
    listed = subprocess.run([sys.executable, "-c", LIST], check=True, capture_output=True, text=True)
    there = json.loads(listed.stdout)
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows})
    assert {name: re.findall(r"`(\w+)`", labels) for name, labels, _ in rows} == {
        name: labels for name, (_, *labels) in there.items()
    }
    histograms = {name for name, _, meaning in rows if meaning.startswith("histogram: ")}
    assert histograms == {name for name, (kind, *_) in there.items() if kind == "histogram"}
