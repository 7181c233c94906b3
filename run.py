#!/usr/bin/env python3
"""From a fresh clone to a running gateway, or to passed tests, with Python 3.11 and pip alone.

    python3 run.py serve [options of `gateway serve`]
    python3 run.py check | explain | key | schema …    # the other commands of `gateway`
    python3 run.py test  [options of pytest]
    python3 run.py clients                      # other people's clients against it: docs/clients.md
    python3 run.py lock                         # after a change of pyproject.toml's dependencies

The first run makes `.venv` from the hashes in `requirements.lock` (uv does it, in seconds, from `.tools`);
later runs find both and start at once. Nothing outside this folder is touched.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOOLS = ROOT / ".tools"
PYTHON = ROOT / ".venv" / "bin" / "python"
LOCK = ROOT / "requirements.lock"
DONE = ROOT / ".venv" / "installed"

CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "floors": ["lint-imports"],
    "types": ["pyright"],
}
BESIDE = ["--numprocesses=3", "--dist=loadfile", "--no-loadscope-reorder"]
"""How all tests are run: three files at a time, for most tests wait; in their order, for `cli` takes longest."""


def main() -> None:
    """Run the one command that was asked for."""
    command, *rest = sys.argv[1:] or ["help"]
    if sys.version_info < (3, 11):  # noqa: UP036 this file is also what an older Python meets first
        sys.exit(f"The gateway needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    if command in ("serve", "check", "explain", "key", "schema"):
        install()
        os.execv(PYTHON, [str(PYTHON), "-m", "gateway", command, *rest])
    elif command == "test":
        install()
        test(rest)
    elif command == "clients":
        install()
        test(["tests/clients/run_clients.py", *rest])
    elif command == "lock":
        lock()
    else:
        sys.exit((__doc__ or "").strip())


def install() -> None:
    """Make `.venv` hold exactly what the lock says, and the checkout itself; at once if it does already."""
    version = "{}.{}".format(*sys.version_info)
    wanted = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + version.encode()).hexdigest()
    if DONE.exists() and DONE.read_text() == wanted:
        return
    print("Installing the gateway into .venv (a few seconds, once) …", file=sys.stderr, flush=True)
    uv("venv", "--quiet", "--clear", str(PYTHON.parent.parent))
    uv("pip", "install", "--quiet", "--require-hashes", "-r", str(LOCK))
    uv("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    DONE.write_text(wanted)


def test(asked: list[str]) -> None:
    """Run every check, then all tests, a file beside others; the first failure ends it. With arguments, only pytest."""
    bin = PYTHON.parent
    environment = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    for name, command in () if asked else CHECKS.items():
        print(f"── {name}", flush=True)
        if code := subprocess.run([bin / command[0], *command[1:]], cwd=ROOT, env=environment).returncode:
            sys.exit(code)
    print("── tests", flush=True)
    sys.exit(subprocess.run([PYTHON, "-m", "pytest", *(asked or BESIDE)], cwd=ROOT, env=environment).returncode)


def lock() -> None:
    """Write `requirements.lock` anew: every platform, every hash, no registry's host."""
    compile = ["pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--upgrade"]
    uv(*compile, "--python-version", "3.11", "--group", "dev", "pyproject.toml", "-o", str(LOCK))


def uv(*arguments: str) -> None:
    """Run uv from `.tools`, fetching it there first; it uses this very Python and fetches no other."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOOLS),
        "UV_PYTHON": sys.executable if arguments[0] == "venv" else str(PYTHON if PYTHON.exists() else sys.executable),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_CACHE_DIR": str(TOOLS / "cache"),
        "UV_NO_CONFIG": "1",
    }
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
    try:
        if not (TOOLS / "uv").exists():
            subprocess.run([*pip, "--root-user-action=ignore", "--target", str(TOOLS), "uv"], check=True)
        subprocess.run([sys.executable, "-m", "uv", *arguments], check=True, env=environment, cwd=ROOT)
    except subprocess.CalledProcessError as error:
        print("The installation failed, for the reason above. Is the package index reachable?", file=sys.stderr)
        sys.exit(error.returncode)


if __name__ == "__main__":
    main()
