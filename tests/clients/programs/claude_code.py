import json
import os
from pathlib import Path

from tell import HI, KEY, PNG, URL, WEATHER, CommandFailed, run, tell

NODE, COMMAND = os.environ["NODE"], Path("node_modules/@anthropic-ai/claude-code/cli-wrapper.cjs")


def claude(model, key, *options, said=HI):
    """Run `claude --print`, and return its events."""
    # docs
    environment = {
        "ANTHROPIC_BASE_URL": URL,  # without /v1
        "ANTHROPIC_AUTH_TOKEN": key,
        "ANTHROPIC_MODEL": model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": model,  # for its small tasks
    }
    # end
    command = [NODE, Path(os.environ["PLACE"]) / COMMAND, "--print", "--verbose", "--output-format", "stream-json"]
    code, wrote = run([*command, *options], said, {**environment, "CLAUDE_CODE_MAX_RETRIES": "1"})
    events = [json.loads(line) for line in wrote.splitlines() if line.startswith("{")]
    last = events[-1] if events else {}
    if code or last.get("is_error"):
        raise CommandFailed(last.get("result") or wrote, last.get("api_error_status"))
    return events


def blocks(events, kind):
    """Return the blocks of a kind that the model said."""
    said = [block for event in events if event["type"] == "assistant" for block in event["message"]["content"]]
    return [block for block in said if block["type"] == kind]


def seen(events):
    used = events[-1]["usage"]
    cached = used["cache_read_input_tokens"]
    usage = [used["input_tokens"] + cached + used["cache_creation_input_tokens"], used["output_tokens"], cached]
    return {"text": events[-1]["result"], "usage": usage}


def stream(model, key=KEY):
    events = claude(model, key, "--include-partial-messages")
    deltas = [event["event"].get("delta", {}) for event in events if event["type"] == "stream_event"]
    return {**seen(events), "pieces": len([delta for delta in deltas if delta.get("type") == "text_delta"])}


def streamed_tools(model, key):
    events = claude(model, key, "--allowed-tools", "Bash")
    (call,) = blocks(events, "tool_use")
    return {"tool": call["name"], "arguments": call["input"], "text": events[-1]["result"]}


def structured(model, key):
    events = claude(model, key, "--json-schema", json.dumps(WEATHER))
    return {"object": events[-1]["structured_output"]}


def thinking(model, key):
    events = claude(model, key)
    return {"thought": "".join(block["thinking"] for block in blocks(events, "thinking")), "text": events[-1]["result"]}


def image(model, key):
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content = [{"type": "text", "text": "What colour?"}, {"type": "image", "source": source}]
    said = {"type": "user", "message": {"role": "user", "content": content}}
    return {"text": claude(model, key, "--input-format", "stream-json", said=json.dumps(said) + "\n")[-1]["result"]}


tell(globals())
