import json

from openai import OpenAI
from tell import CITY, HI, KEY, PNG, REMEMBER, RESULT, URL, WEATHER, WHICH, tell

TOOLS = [{"type": "function", "name": "weather", "parameters": CITY, "strict": False}]
FORMAT = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}}


def client(key=KEY):
    # docs
    client = OpenAI(base_url=f"{URL}/v1", api_key=key)
    # end
    return client


def whole(model, key=KEY):
    answer = client(key).responses.create(model=model, input=HI)
    return {"text": answer.output_text, "usage": counted(answer.usage)}


def counted(usage):
    return [usage.input_tokens, usage.output_tokens, usage.input_tokens_details.cached_tokens]


def stream(model, key=KEY):
    text, last = [], None
    for event in client(key).responses.create(model=model, input=HI, stream=True):
        last = event
        if event.type == "response.output_text.delta":
            text.append(event.delta)
    return {"text": "".join(text), "pieces": len(text), "usage": counted(last.response.usage)}


def tools(model, key):
    first = client(key).responses.create(model=model, input=HI, tools=TOOLS)
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    items = [{"role": "user", "content": HI}, *first.output, result]
    text = client(key).responses.create(model=model, input=items, tools=TOOLS).output_text
    return {"tool": call.name, "arguments": json.loads(call.arguments), "text": text}


def streamed_tools(model, key):
    with client(key).responses.stream(model=model, input=HI, tools=TOOLS) as streamed:
        first = streamed.get_final_response()
    call = next(item for item in first.output if item.type == "function_call")
    called = call.model_dump(include={"type", "call_id", "name", "arguments"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": RESULT}
    items = [{"role": "user", "content": HI}, called, result]
    with client(key).responses.stream(model=model, input=items, tools=TOOLS) as streamed:
        text = streamed.get_final_response().output_text
    return {"tool": call.name, "arguments": json.loads(call.arguments), "text": text}


def structured(model, key):
    return {"object": json.loads(client(key).responses.create(model=model, input=HI, text=FORMAT).output_text)}


def thinking(model, key):
    answer = client(key).responses.create(model=model, input=HI)
    thoughts = [part.text for item in answer.output if item.type == "reasoning" for part in item.summary]
    return {"thought": "".join(thoughts), "text": answer.output_text}


def image(model, key):
    content = [
        {"type": "input_text", "text": "What colour?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"},
    ]
    return {"text": client(key).responses.create(model=model, input=[{"role": "user", "content": content}]).output_text}


def follow(model, key):
    first = client(key).responses.create(model=model, input=REMEMBER)
    return {"text": client(key).responses.create(model=model, input=WHICH, previous_response_id=first.id).output_text}


def embeddings(model, key):
    return {"vector": client(key).embeddings.create(model=model, input=HI).data[0].embedding}


def models(model, key):
    return {"models": [one.id for one in client(key).models.list()]}


tell(globals())
