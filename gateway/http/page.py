"""The page that a browser finds at `/`."""

from collections.abc import Sequence
from html import escape

from gateway import __version__

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 4rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; }
p.sub { margin-top: .25rem; opacity: .7; }
pre { background: color-mix(in srgb, currentColor 8%, transparent); padding: 1rem; border-radius: .5rem; }
pre { overflow-x: auto; }
code { font: 14px/1.5 ui-monospace, monospace; }
nav { display: flex; gap: 1.25rem; }
"""
KEY_LINE = "  -H 'authorization: Bearer YOUR_KEY' \\\n"


def page(url: str, models: Sequence[str], *, has_auth: bool) -> str:
    """Return the page: what this is, a command to paste, where to read on."""
    model = models[0] if models else "…"
    command = (
        f"curl {url}/v1/chat/completions \\\n"
        "  -H 'content-type: application/json' \\\n"
        f"{KEY_LINE if has_auth else ''}"
        f"""  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'"""
    )
    names = ", ".join(f"<code>{escape(name)}</code>" for name in models) or "none by name; see the configuration"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>LLM gateway</title><style>{STYLE}</style></head><body>
<h1>LLM gateway</h1><p class="sub">version {__version__} · an OpenAI-compatible door to every provider</p>
<p>Point an OpenAI client at <code>{escape(url)}/v1</code>, or paste this:</p>
<pre><code>{escape(command)}</code></pre>
<p>Models: {names}</p>
<nav><a href="/docs">API</a><a href="/redoc">Reference</a><a href="/health">Health</a>
<a href="/metrics">Metrics</a></nav>
</body></html>"""
