import base64
import json
import os
from pathlib import Path

import llm
from tell import HI, KEY, PNG, RESULT, URL, WEATHER, tell

home = Path(os.environ["HOME"]) / "llm"
home.mkdir(exist_ok=True)
os.environ["LLM_USER_PATH"] = str(home)


def model_of(model, key):
    # docs
    settings = {
        "model_id": model,
        "model_name": model,
        "api_base": f"{URL}/v1",
        "api_key_name": "gateway",
        "vision": True,
        "supports_tools": True,
        "supports_schema": True,
    }
    (home / "extra-openai-models.yaml").write_text(json.dumps([settings]))  # JSON is YAML too
    (home / "keys.json").write_text(json.dumps({"gateway": key}))
    # end
    return llm.get_model(model)


def whole(model, key=KEY):
    return seen(model_of(model, key).prompt(HI, stream=False))


def seen(answer):
    text, used = answer.text(), answer.usage()
    cached = (used.details or {}).get("prompt_tokens_details", {}).get("cached_tokens")
    return {"text": text, "usage": [used.input, used.output, cached]}


def stream(model, key=KEY):
    answer = model_of(model, key).prompt(HI, stream=True)
    pieces = [piece for piece in answer if piece]
    return {**seen(answer), "pieces": len(pieces)}


def called(model, key, streams):
    calls = []

    def weather(city: str) -> str:
        """Tell the weather in a city."""
        calls.append(city)
        return RESULT

    text = model_of(model, key).chain(HI, tools=[weather], stream=streams).text()
    return {"tool": "weather", "arguments": {"city": calls[0]}, "text": text}


def tools(model, key):
    return called(model, key, False)


def streamed_tools(model, key):
    return called(model, key, True)


def structured(model, key):
    return {"object": json.loads(model_of(model, key).prompt(HI, schema=WEATHER, stream=False).text())}


def image(model, key):
    picture = llm.Attachment(type="image/png", content=base64.b64decode(PNG))
    return {"text": model_of(model, key).prompt("What colour?", attachments=[picture], stream=False).text()}


tell(globals())
