from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from tell import HI, KEY, PNG, REMEMBER, RESULT, URL, WHICH, tell


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


@tool
def weather(city: str) -> str:
    """Tell the weather in a city."""
    return RESULT


def chat(model, key=KEY, **more):
    # docs
    chat = ChatOpenAI(model=model, base_url=f"{URL}/v1", api_key=key, use_responses_api=True, **more)
    # end
    return chat


def whole(model, key=KEY):
    return seen(chat(model, key).invoke(HI))


def seen(answer):
    used = answer.usage_metadata
    cached = used.get("input_token_details", {}).get("cache_read")
    return {"text": answer.text, "usage": [used["input_tokens"], used["output_tokens"], cached]}


def stream(model, key=KEY):
    chunks = list(chat(model, key, stream_usage=True).stream(HI))
    answer = chunks[0]
    for chunk in chunks[1:]:
        answer += chunk
    return {**seen(answer), "pieces": len([chunk for chunk in chunks if chunk.text])}


def tools(model, key):
    return called(chat(model, key).bind_tools([weather]).invoke)


def streamed_tools(model, key):
    def ask(messages):
        first, *rest = chat(model, key).bind_tools([weather]).stream(messages)
        for chunk in rest:
            first += chunk
        return first

    return called(ask)


def called(ask):
    asked = [HumanMessage(HI)]
    first = ask(asked)
    call = first.tool_calls[0]
    text = ask([*asked, first, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]).text
    return {"tool": call["name"], "arguments": call["args"], "text": text}


def structured(model, key):
    return {"object": chat(model, key).with_structured_output(Weather, method="json_schema").invoke(HI).model_dump()}


def thinking(model, key):
    answer = chat(model, key, reasoning={"effort": "low", "summary": "auto"}).invoke(HI)
    thoughts = [block["reasoning"] for block in answer.content_blocks if block["type"] == "reasoning"]
    return {"thought": "".join(thoughts), "text": answer.text}


def image(model, key):
    url = {"url": f"data:image/png;base64,{PNG}"}
    content = [{"type": "text", "text": "What colour?"}, {"type": "image_url", "image_url": url}]
    return {"text": chat(model, key).invoke([HumanMessage(content)]).text}


def follow(model, key):
    first = chat(model, key).invoke(REMEMBER)
    return {"text": chat(model, key).invoke(WHICH, previous_response_id=first.response_metadata["id"]).text}


tell(globals())
