"""What the bench ran on."""

import os
import platform
import re
import time
from pathlib import Path


def machine() -> str:
    """Return a line on the machine, its software, and the day."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory_kb = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(), re.M)
    name = cpu[1] if cpu else platform.processor()
    gb = round(int(memory_kb[1]) / 1e6) if memory_kb else 0
    return (
        f"{time.strftime('%B %Y')}; {name}, {platform.machine()}, {os.cpu_count()} cores, {gb} GB; "
        f"Linux {platform.release().partition('-')[0]}, CPython {platform.python_version()}"
    )
