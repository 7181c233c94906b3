import json

import litellm
from tell import CITY, HI, KEY, PNG, RESULT, URL, WEATHER, tell

MESSAGES = [{"role": "user", "content": HI}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}


def ask(model, key, messages=MESSAGES, **more):
    # docs
    answer = litellm.completion(model=f"openai/{model}", api_base=f"{URL}/v1", api_key=key, messages=messages, **more)
    # end
    return answer


def whole(model, key=KEY):
    answer = ask(model, key)
    return {"text": answer.choices[0].message.content, "usage": counted(answer.usage)}


def counted(usage):
    return [usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens]


def stream(model, key=KEY):
    chunks = list(ask(model, key, stream=True, stream_options={"include_usage": True}))
    text = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    usage = next(chunk.usage for chunk in reversed(chunks) if getattr(chunk, "usage", None))
    return {"text": "".join(text), "pieces": len(text), "usage": counted(usage)}


def tools(model, key):
    return called(lambda messages: ask(model, key, messages, tools=TOOLS))


def streamed_tools(model, key):
    return called(lambda messages: litellm.stream_chunk_builder([*ask(model, key, messages, tools=TOOLS, stream=True)]))


def called(asking):
    first = asking(MESSAGES).choices[0].message
    call = first.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": RESULT}
    text = asking([*MESSAGES, first.model_dump(exclude_none=True), result]).choices[0].message.content
    return {"tool": call.function.name, "arguments": json.loads(call.function.arguments), "text": text}


def structured(model, key):
    return {"object": json.loads(ask(model, key, response_format=SCHEMA).choices[0].message.content)}


def thinking(model, key):
    message = ask(model, key).choices[0].message
    return {"thought": message.reasoning_content, "text": message.content}


def image(model, key):
    content = [
        {"type": "text", "text": "What colour?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    return {"text": ask(model, key, [{"role": "user", "content": content}]).choices[0].message.content}


def embeddings(model, key):
    answer = litellm.embedding(model=f"openai/{model}", api_base=f"{URL}/v1", api_key=key, input=[HI])
    return {"vector": answer.data[0]["embedding"]}


tell(globals())
