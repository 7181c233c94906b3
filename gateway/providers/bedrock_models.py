"""What families of models take on Bedrock beyond what its Converse API says for all of them.

Sources: docs.aws.amazon.com/bedrock, "Prompt caching", "Extended thinking"; docs.aws.amazon.com/nova, "Extended
thinking"; the models' own errors.
"""

import re
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from gateway.providers.anthropic_request import Facts, facts


class Family(Struct, frozen=True):
    """What one family takes."""

    thinking: Literal["claude", "nova", "effort", "reasoning", "none", "unknown"] = "unknown"
    """In which words it is told how hard to think: Claude's; Nova's `reasoningConfig`; the field `reasoning_effort`;
    `reasoning.effort`. `none`: it does not think."""
    caches: bool = False
    """It knows cache points; others refuse the call for one."""
    top_k: Literal["top_k", "nested"] = "top_k"
    """`nested`: it wants `top_k` as `inferenceConfig.topK`, among its own fields."""
    claude: Facts | None = None
    """What this Claude takes; `None`: it is no Claude, or it is not known to be one."""


OTHER = Family()
OPAQUE = Family(caches=True)
"""An ARN that does not say which model is behind it: what clients ask for is passed on."""
FAMILIES = {
    "anthropic.": Family("claude", caches=True),
    "amazon.nova-": Family("none", caches=True, top_k="nested"),
    "amazon.nova-2-": Family("nova", caches=True, top_k="nested"),
    "openai.": Family("reasoning"),
    "openai.gpt-oss-": Family("effort"),
}
"""By the beginning of a model's id behind its region, the longest that fits."""

_region = re.compile(r"(?:global|us-gov|[a-z]{2,5})\.(?=[a-z0-9]+\.)")


def family_of(model: str) -> Family:
    """Return what `model` takes: an id, one of an inference profile (`us.anthropic.…`), or an ARN that ends in one."""
    name = plain_name(model)
    fitting = [prefix for prefix in FAMILIES if name.startswith(prefix)]
    if not fitting:
        return OPAQUE if model.startswith("arn:") else OTHER
    family = FAMILIES[max(fitting, key=len)]
    return replace(family, claude=facts(name)) if family.thinking == "claude" else family


def plain_name(model: str) -> str:
    """Return `model` without its region, and of an ARN only the end."""
    return _region.sub("", model.rpartition("/")[2], count=1)
