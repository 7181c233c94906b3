import base64

from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from tell import HI, KEY, PNG, RESULT, URL, tell


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: int


def weather(city: str) -> str:
    """Tell the weather in a city."""
    return RESULT


def llm(model, key=KEY):
    # docs
    llm = OpenAILike(
        model=model,
        api_base=f"{URL}/v1",
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
    )
    # end
    return llm


ASKED = [ChatMessage(role="user", content=HI)]


def whole(model, key=KEY):
    answer = llm(model, key).chat(ASKED)
    return {"text": answer.message.content, "usage": counted(answer.raw.usage)}


def counted(usage):
    return [usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens]


def stream(model, key=KEY):
    text, usage = [], None
    for chunk in llm(model, key).stream_chat(ASKED, stream_options={"include_usage": True}):
        usage = chunk.raw.usage or usage
        text += [chunk.delta] if chunk.delta else []
    return {"text": "".join(text), "pieces": len(text), "usage": counted(usage)}


def tools(model, key):
    tool, talker = FunctionTool.from_defaults(weather), llm(model, key)
    first = talker.chat_with_tools([tool], chat_history=ASKED)
    return called(talker, tool, first, lambda history: talker.chat_with_tools([tool], chat_history=history))


def streamed_tools(model, key):
    tool, talker = FunctionTool.from_defaults(weather), llm(model, key)
    *_, first = talker.stream_chat_with_tools([tool], chat_history=ASKED)
    return called(talker, tool, first, lambda h: [*talker.stream_chat_with_tools([tool], chat_history=h)][-1])


def called(talker, tool, first, ask):
    (call,) = talker.get_tool_calls_from_response(first)
    said = str(tool(**call.tool_kwargs))
    result = ChatMessage(role="tool", content=said, additional_kwargs={"tool_call_id": call.tool_id})
    answer = ask([*ASKED, first.message, result])
    return {"tool": call.tool_name, "arguments": call.tool_kwargs, "text": answer.message.content}


def structured(model, key):
    return {"object": llm(model, key).as_structured_llm(Weather).chat(ASKED).raw.model_dump()}


def image(model, key):
    blocks = [TextBlock(text="What colour?"), ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png")]
    return {"text": llm(model, key).chat([ChatMessage(role="user", blocks=blocks)]).message.content}


def embeddings(model, key):
    # docs
    embedder = OpenAILikeEmbedding(model_name=model, api_base=f"{URL}/v1", api_key=key)
    # end
    return {"vector": embedder.get_query_embedding(HI)}


tell(globals())
