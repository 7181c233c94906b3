import json

from anthropic import Anthropic
from tell import CITY, HI, KEY, PNG, RESULT, URL, WEATHER, tell

MESSAGES = [{"role": "user", "content": HI}]
TOOLS = [{"name": "weather", "input_schema": CITY}]
MOST = {"max_tokens": 4000, "messages": MESSAGES}


def client(key=KEY):
    # docs
    client = Anthropic(base_url=URL, api_key=key)  # without /v1
    # end
    return client


def whole(model, key=KEY):
    answer = client(key).messages.create(model=model, **MOST)
    return {"text": text_of(answer), "usage": counted(answer.usage)}


def text_of(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def counted(usage):
    cached = usage.cache_read_input_tokens
    return [usage.input_tokens + cached + usage.cache_creation_input_tokens, usage.output_tokens, cached]


def stream(model, key=KEY):
    with client(key).messages.stream(model=model, **MOST) as streamed:
        text = list(streamed.text_stream)
        answer = streamed.get_final_message()
    return {"text": "".join(text), "pieces": len(text), "usage": counted(answer.usage)}


def tools(model, key):
    return called(
        lambda messages: client(key).messages.create(model=model, **{**MOST, "messages": messages}, tools=TOOLS)
    )


def streamed_tools(model, key):
    def ask(messages):
        with client(key).messages.stream(model=model, **{**MOST, "messages": messages}, tools=TOOLS) as streamed:
            return streamed.get_final_message()

    return called(ask)


def called(ask):
    first = ask(MESSAGES)
    call = next(block for block in first.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": RESULT}
    answered = {"role": "assistant", "content": first.content}
    text = text_of(ask([*MESSAGES, answered, {"role": "user", "content": [result]}]))
    return {"tool": call.name, "arguments": call.input, "text": text}


def structured(model, key):
    form = {"format": {"type": "json_schema", "schema": WEATHER}}
    return {"object": json.loads(text_of(client(key).messages.create(model=model, **MOST, output_config=form)))}


def thinking(model, key):
    budget = {"type": "enabled", "budget_tokens": 2000}
    with client(key).messages.stream(model=model, **MOST, thinking=budget) as streamed:
        answer = streamed.get_final_message()
    return {"thought": "".join(b.thinking for b in answer.content if b.type == "thinking"), "text": text_of(answer)}


def image(model, key):
    source = {"type": "base64", "media_type": "image/png", "data": PNG}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What colour?"}]
    answer = client(key).messages.create(model=model, max_tokens=4000, messages=[{"role": "user", "content": content}])
    return {"text": text_of(answer)}


def models(model, key):
    return {"models": [one.display_name for one in client(key).models.list()]}


tell(globals())
