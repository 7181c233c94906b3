"""Parameters that a model does not take, and what has to be done to a request so that it is taken all the same."""

from collections.abc import Mapping

from msgspec import Struct

WISHES = frozenset(
    {
        *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"),
        *("seed", "prediction", "verbosity", "user", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention"),
    }
)
"""Parameters without which the answer is still the one that was asked for. No other is ever left out: whoever asks for
tools, a schema, a stop sequence, log probabilities, a service tier or a limit has to know that they do not get it."""

SYNONYMS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Parameters of chat completions that mean the same: a model that rejects one may take the other."""


class Fit(Struct, frozen=True):
    """What has to be done to a request for one model."""

    rejects: frozenset[str] = frozenset()
    """Parameters that it does not take."""
    renames: Mapping[str, str] = {}
    """Parameters of chat completions that it knows by another name."""

    def __bool__(self) -> bool:
        """Whether anything has to be done at all."""
        return bool(self.rejects or self.renames)

    def __or__(self, other: "Fit") -> "Fit":
        """Do both."""
        return Fit(self.rejects | other.rejects, {**self.renames, **other.renames})
