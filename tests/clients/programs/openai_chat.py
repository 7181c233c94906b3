import json

from openai import OpenAI
from tell import CITY, HI, KEY, PNG, RESULT, URL, WEATHER, tell

MESSAGES = [{"role": "user", "content": HI}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}


def client(key=KEY):
    # docs
    client = OpenAI(base_url=f"{URL}/v1", api_key=key)
    # end
    return client


def whole(model, key=KEY):
    answer = client(key).chat.completions.create(model=model, messages=MESSAGES)
    return {"text": answer.choices[0].message.content, "usage": counted(answer.usage)}


def counted(usage):
    return [usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens]


def stream(model, key=KEY):
    text, usage = [], None
    options = {"include_usage": True}
    for chunk in client(key).chat.completions.create(
        model=model, messages=MESSAGES, stream=True, stream_options=options
    ):
        usage = chunk.usage or usage
        text += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    return {"text": "".join(text), "pieces": len(text), "usage": counted(usage)}


def tools(model, key):
    first = client(key).chat.completions.create(model=model, messages=MESSAGES, tools=TOOLS).choices[0].message
    call = first.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    messages = [*MESSAGES, first, result]
    text = client(key).chat.completions.create(model=model, messages=messages, tools=TOOLS).choices[0].message.content
    return {"tool": call.function.name, "arguments": json.loads(call.function.arguments), "text": text}


def streamed_tools(model, key):
    with client(key).chat.completions.stream(model=model, messages=MESSAGES, tools=TOOLS) as streamed:
        first = streamed.get_final_completion().choices[0].message
    call = first.tool_calls[0]
    answered = {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type", "function"})]}
    messages = [*MESSAGES, answered, {"role": "tool", "tool_call_id": call.id, "content": RESULT}]
    with client(key).chat.completions.stream(model=model, messages=messages, tools=TOOLS) as streamed:
        text = streamed.get_final_completion().choices[0].message.content
    return {"tool": call.function.name, "arguments": json.loads(call.function.arguments), "text": text}


def structured(model, key):
    answer = client(key).chat.completions.create(model=model, messages=MESSAGES, response_format=SCHEMA)
    return {"object": json.loads(answer.choices[0].message.content)}


def thinking(model, key):
    message = client(key).chat.completions.create(model=model, messages=MESSAGES).choices[0].message
    return {"thought": message.reasoning_content, "text": message.content}


def image(model, key):
    content = [
        {"type": "text", "text": "What colour?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    answer = client(key).chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    return {"text": answer.choices[0].message.content}


def embeddings(model, key):
    return {"vector": client(key).embeddings.create(model=model, input=HI).data[0].embedding}


def models(model, key):
    return {"models": [one.id for one in client(key).models.list()]}


tell(globals())
