import base64
import json
import os
import re
import shlex
from pathlib import Path

from tell import HI, KEY, PNG, URL, WEATHER, CommandFailed, run, tell

NODE, COMMAND = os.environ["NODE"], Path("node_modules/@openai/codex/bin/codex.js")
HOME = Path(os.environ["HOME"])
CONFIG = f"""
# docs
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{URL}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
# end
request_max_retries = 1
stream_max_retries = 0

[features]
plugins = false      # it would look for them on the internet

[analytics]
enabled = false
"""


def codex(model, key, *options):
    """Run `codex exec`, and return its events."""
    (HOME / ".codex").mkdir(exist_ok=True)
    (HOME / ".codex" / "config.toml").write_text(CONFIG)
    command = [NODE, Path(os.environ["PLACE"]) / COMMAND, "exec", "--json", "--skip-git-repo-check", "--model", model]
    code, wrote = run([*command, *options], HI, {"GATEWAY_KEY": key})
    events = [json.loads(line) for line in wrote.splitlines() if line.startswith("{")]
    errors = [event["error"]["message"] for event in events if event["type"] == "turn.failed"]
    if code or errors:
        raise CommandFailed(" ".join(errors) or wrote, status_of(" ".join(errors)))
    return events


def status_of(error):
    """Return the HTTP status that an error tells of. Of a 404 it tells the gateway's own words alone."""
    told = re.search(r"status:? (\d{3})", error)
    return int(told[1]) if told else 404 if "is not a model here" in error else None


def items(events, kind):
    """Return the items of a kind that are complete."""
    said = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in said if item["type"] == kind]


def text_of(events):
    return items(events, "agent_message")[-1]["text"]


def stream(model, key=KEY):
    events = codex(model, key)
    used = events[-1]["usage"]
    return {
        "text": text_of(events),
        "usage": [used["input_tokens"], used["output_tokens"], used["cached_input_tokens"]],
    }


def streamed_tools(model, key):
    events = codex(model, key, "--sandbox", "danger-full-access")
    (call,) = items(events, "command_execution")
    return {"tool": "exec_command", "arguments": {"cmd": shlex.split(call["command"])[-1]}, "text": text_of(events)}


def structured(model, key):
    schema = HOME / "schema.json"
    schema.write_text(json.dumps(WEATHER))
    return {"object": json.loads(text_of(codex(model, key, "--output-schema", str(schema))))}


def thinking(model, key):
    events = codex(model, key)
    return {"thought": "".join(item["text"] for item in items(events, "reasoning")), "text": text_of(events)}


def image(model, key):
    picture = HOME / "picture.png"
    picture.write_bytes(base64.b64decode(PNG))
    return {"text": text_of(codex(model, key, "--image", str(picture)))}


tell(globals())
