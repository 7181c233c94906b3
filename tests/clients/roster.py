"""The clients: how each is run, what it raises, and what it cannot do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

OPENAI = {
    "refused": "AuthenticationError",
    "unknown": "NotFoundError",
    "busy": "RateLimitError",
    "broken": "APIError",
}
ANTHROPIC = {**OPENAI, "broken": "APIStatusError"}
LANGCHAIN_OPENAI = {
    "refused": "OpenAIAuthenticationError",
    "unknown": "OpenAIModelNotFoundError",
    "busy": "OpenAIRateLimitError",
    "broken": "APIError",
}
LANGCHAIN_ANTHROPIC = {
    "refused": "AnthropicAuthenticationError",
    "unknown": "AnthropicModelNotFoundError",
    "busy": "AnthropicRateLimitError",
    "broken": "APIStatusError",
}
LITELLM = {**OPENAI, "broken": "MidStreamFallbackError"}
AI_SDK = {"refused": "APICallError", "unknown": "APICallError", "busy": "RetryError", "broken": "APICallError"}
COMMAND = dict.fromkeys(OPENAI, "CommandFailed")

NO_LIST = "it lists no models"
NO_REASONING = "of chat completions it reads no `reasoning_content`"
NO_REASONING_IN_CHAT = f"{NO_REASONING}; by Responses it shows it"
ALWAYS_STREAMS = "it always streams"
ELSEWHERE = "by another row of the same client"
NO_FOLLOWING = "it sends the whole conversation each time"
NO_EMBEDDINGS = "it asks for none"
OF_RESPONSES = {"follow": "of Responses only"}
AGENT = {
    "follow": NO_FOLLOWING,
    **dict.fromkeys(("whole", "tools", "usage"), ALWAYS_STREAMS),
    "embeddings": NO_EMBEDDINGS,
    "models": NO_LIST,
}


@dataclass(frozen=True, eq=False)
class Client:
    """A client by one of its ways to ask: a row of the table."""

    id: str
    title: str
    package: str
    """Whose version is shown."""
    environment: str
    """In which it is run: see `environments.place`; `own` is the gateway's own."""
    program: str
    """In `programs/`; of Python's clients and of commands one in Python."""
    raises: Mapping[str, str] = field(default_factory=lambda: OPENAI)
    """The exception for a feature that is an error."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Features that it does not have, and why."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """What must be known of features that work."""
    shows_wait: bool = True
    """Its exception says when to come again, where that is known."""


CLIENTS = (
    Client("openai-3", "openai (Python), chat completions", "openai", "own", "openai_chat.py", without=OF_RESPONSES),
    Client("openai-3-r", "openai (Python), Responses", "openai", "own", "openai_responses.py"),
    Client(
        "openai-2",
        "openai (Python), chat completions",
        "openai",
        "python.openai-2",
        "openai_chat.py",
        without=OF_RESPONSES,
    ),
    Client("openai-2-r", "openai (Python), Responses", "openai", "python.openai-2", "openai_responses.py"),
    Client(
        "openai-1",
        "openai (Python), chat completions",
        "openai",
        "python.openai-1",
        "openai_chat.py",
        without=OF_RESPONSES,
    ),
    Client("openai-1-r", "openai (Python), Responses", "openai", "python.openai-1", "openai_responses.py"),
    Client(
        "node-openai", "openai (Node), chat completions", "openai", "node.sdks", "openai_chat.mjs", without=OF_RESPONSES
    ),
    Client("node-openai-r", "openai (Node), Responses", "openai", "node.sdks", "openai_responses.mjs"),
    Client(
        "node-6", "openai (Node), chat completions", "openai", "node.openai-6", "openai_chat.mjs", without=OF_RESPONSES
    ),
    Client("node-6-r", "openai (Node), Responses", "openai", "node.openai-6", "openai_responses.mjs"),
    Client(
        "anthropic",
        "anthropic (Python)",
        "anthropic",
        "own",
        "anthropic_messages.py",
        ANTHROPIC,
        {**OF_RESPONSES, "embeddings": NO_EMBEDDINGS},
    ),
    Client(
        "node-anthropic",
        "@anthropic-ai/sdk (Node)",
        "@anthropic-ai/sdk",
        "node.sdks",
        "anthropic_messages.mjs",
        {**OPENAI, "broken": "APIError"},
        {**OF_RESPONSES, "embeddings": NO_EMBEDDINGS},
    ),
    Client(
        "langchain",
        "langchain-openai",
        "langchain-openai",
        "python.langchain",
        "langchain_chat.py",
        LANGCHAIN_OPENAI,
        {"thinking": NO_REASONING_IN_CHAT, **OF_RESPONSES, "models": NO_LIST},
    ),
    Client(
        "langchain-r",
        "langchain-openai, Responses",
        "langchain-openai",
        "python.langchain",
        "langchain_responses.py",
        LANGCHAIN_OPENAI,
        {"embeddings": ELSEWHERE, "models": NO_LIST},
    ),
    Client(
        "langchain-m",
        "langchain-anthropic",
        "langchain-anthropic",
        "python.langchain",
        "langchain_messages.py",
        LANGCHAIN_ANTHROPIC,
        {"embeddings": NO_EMBEDDINGS, **OF_RESPONSES, "models": NO_LIST},
    ),
    Client(
        "llama-index",
        "llama-index, `OpenAILike`",
        "llama-index-llms-openai-like",
        "python.llama-index",
        "llama_index_chat.py",
        without={"thinking": NO_REASONING, **OF_RESPONSES, "models": NO_LIST},
        notes={"structured": "`should_use_structured_outputs=True`", "streamed_usage": "`stream_options`"},
    ),
    Client(
        "instructor",
        "instructor",
        "instructor",
        "python.instructor",
        "instructor_chat.py",
        without={
            "tools": "its tools are the answer's form",
            "streamed_tools": "its tools are the answer's form",
            "thinking": "it returns the answer's form and nothing else",
            "embeddings": NO_EMBEDDINGS,
            **OF_RESPONSES,
            "models": NO_LIST,
        },
    ),
    Client(
        "llm",
        "llm",
        "llm",
        "python.llm",
        "llm_chat.py",
        without={
            "thinking": NO_REASONING,
            "embeddings": "it has no address to set for them",
            **OF_RESPONSES,
            "models": NO_LIST,
        },
    ),
    Client(
        "litellm",
        "litellm, `openai/…`",
        "litellm",
        "python.litellm",
        "litellm_chat.py",
        LITELLM,
        {**OF_RESPONSES, "models": NO_LIST},
    ),
    Client(
        "litellm-m",
        "litellm, `anthropic/…`",
        "litellm",
        "python.litellm",
        "litellm_messages.py",
        LITELLM,
        {"embeddings": ELSEWHERE, **OF_RESPONSES, "models": NO_LIST},
        shows_wait=False,
    ),
    Client(
        "ai-sdk",
        "AI SDK, `openai(…)`: Responses",
        "ai @ai-sdk/openai",
        "node.sdks",
        "ai_sdk_responses.mjs",
        AI_SDK,
        {"models": NO_LIST},
    ),
    Client(
        "ai-sdk-c",
        "AI SDK, `openai.chat(…)`",
        "ai @ai-sdk/openai",
        "node.sdks",
        "ai_sdk_chat.mjs",
        AI_SDK,
        {"thinking": NO_REASONING_IN_CHAT, "embeddings": ELSEWHERE, **OF_RESPONSES, "models": NO_LIST},
    ),
    Client(
        "ai-sdk-m",
        "AI SDK, `anthropic(…)`",
        "ai @ai-sdk/anthropic",
        "node.sdks",
        "ai_sdk_messages.mjs",
        AI_SDK,
        {"embeddings": NO_EMBEDDINGS, **OF_RESPONSES, "models": NO_LIST},
    ),
    Client(
        "codex",
        "Codex CLI, `codex exec`",
        "@openai/codex",
        "node.commands",
        "codex.py",
        COMMAND,
        AGENT,
        {"stream": "its events show whole messages", "streamed_tools": "its own tool, a shell"},
        shows_wait=False,
    ),
    Client(
        "claude-code",
        "Claude Code, `claude --print`",
        "@anthropic-ai/claude-code",
        "node.commands",
        "claude_code.py",
        COMMAND,
        AGENT,
        {"streamed_tools": "its own tool, a shell"},
        shows_wait=False,
    ),
)
