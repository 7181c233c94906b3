import instructor
from openai import OpenAI
from pydantic import BaseModel
from tell import HI, KEY, PNG, URL, tell


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


MESSAGES = [{"role": "user", "content": HI}]


def client(key=KEY):
    # docs
    client = instructor.from_openai(OpenAI(base_url=f"{URL}/v1", api_key=key))
    # end
    return client


def whole(model, key=KEY):
    answer = client(key).chat.completions.create(model=model, messages=MESSAGES, response_model=None)
    return {"text": answer.choices[0].message.content, "usage": counted(answer.usage)}


def counted(usage):
    return [usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens]


def stream(model, key=KEY):
    text, usage = [], None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for chunk in client(key).chat.completions.create(model=model, messages=MESSAGES, response_model=None, **options):
        usage = chunk.usage or usage
        text += [choice.delta.content for choice in chunk.choices if choice.delta.content]
    return {"text": "".join(text), "pieces": len(text), "usage": counted(usage)}


def structured(model, key):
    asked = {"model": model, "messages": MESSAGES, "response_model": Weather}
    answer = client(key).chat.completions.create(**asked)
    *_, streamed = client(key).chat.completions.create_partial(**asked)
    assert streamed.model_dump() == answer.model_dump()
    return {"object": answer.model_dump()}


def image(model, key):
    content = ["What colour?", instructor.Image.from_base64(f"data:image/png;base64,{PNG}")]
    messages = [{"role": "user", "content": content}]
    answer = client(key).chat.completions.create(model=model, messages=messages, response_model=None)
    return {"text": answer.choices[0].message.content}


tell(globals())
