"""Tells an error about a parameter that a model does not take from all others, in the words of every vendor.

OpenAI has a code for it, and not always. Others say it in prose; where a sentence names no parameter, nothing is told.
A value out of its range is something else: the client can mend that, and has to.
"""

import re

CODES = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
"""OpenAI's, of errors whose `param` is the parameter."""

_NAME = r"""[`'"“]?(?:body\.)?([A-Za-z_]\w*)[`'"”]?"""
_SENTENCES = tuple(
    re.compile(pattern.replace("NAME", _NAME), re.IGNORECASE)
    for pattern in (
        r"^unsupported (?:parameter|value): NAME",  # OpenAI, with and without a code
        r"^unknown parameter: NAME",
        r"unrecognized request arguments? supplied: NAME\.?$",  # OpenAI, Azure
        r"incompatible request arguments? supplied: NAME\.?$",  # OpenAI's search models
        r"^argument not supported on this model: NAME",  # xAI
        r"does not support (?:the )?parameters? NAME",  # xAI, Fireworks
        r"^NAME is deprecated for this model",  # Anthropic, also by way of Bedrock
        r"(?:: )NAME is deprecated for this model",
        r"^NAME: extra inputs are not permitted",  # Anthropic, vLLM, Mistral: pydantic's words
        r"property NAME is unsupported",  # Groq
        r"^NAME is not supported (?:with|by|for) this model",
        r"the model doesn'?t support the NAME field",  # Bedrock
        r"extraneous key \[NAME\] is not permitted",
        r'unknown name "NAME"',  # Google
        r"^unknown field:? NAME",  # Cohere, and servers in Go or Rust
    )
)
_instead = re.compile(r"\buse " + _NAME + r" instead", re.IGNORECASE)
_humps = re.compile(r"(?<=[a-z])(?=[A-Z])")


def unsupported(status: int, message: str, code: str | None, param: str | None) -> tuple[str, str]:
    """Return the parameter that the model does not take, and the one to use instead; empty: it is not about that.

    Args:
        status: of the HTTP answer.
        message: the upstream's own.
        code: its stable word for the error.
        param: what the error is about, where the upstream has a field for that.
    """
    if status not in (400, 422):
        return "", ""
    name = param or "" if code in CODES else ""
    for sentence in _SENTENCES if not name else ():
        if found := sentence.search(message):
            name = found[1]
            break
    instead = _instead.search(message) if name else None
    return _snake(name), _snake(instead[1]) if instead else ""


def _snake(name: str) -> str:
    """Return OpenAI's spelling of a name: xAI and Google write `presencePenalty`."""
    return _humps.sub("_", name).lower()
