"""Azure OpenAI: OpenAI's dialect at another address, with another header."""

import re
from urllib.parse import quote

from gateway.core.call import Attempt
from gateway.providers.base import Keyed
from gateway.providers.openai import OpenAI
from gateway.providers.vendors import Vendor

COUNTS_STREAMS = "2024-09-01"
"""The first api-version that knows `stream_options`; older ones refuse it."""


class AzureOptions(Keyed, frozen=True, kw_only=True):
    """Azure OpenAI. A model's name is that of its deployment there; `base_url` is `https://{resource}.openai.azure.com`."""

    api_version: str = ""
    """A dated API such as `2024-10-21`. Empty: the v1 API, which has no versions."""

    def __post_init__(self) -> None:
        """Check the version, and that nothing is asked that Azure does not tell.

        Raises:
            ValueError: it is none, or something is.
        """
        if not re.fullmatch(r"(\d{4}-\d\d-\d\d(-preview)?)?", self.api_version):
            raise ValueError(
                f'"{self.api_version}" is no api_version; write a date like 2024-10-21, or leave it out for the v1 API'
            )
        if self.discover is not None:
            raise ValueError(
                "discover: Azure lists what could be deployed, not what is; name your deployments under `models:`"
            )

    def off(self) -> str:
        """It needs a key and an address."""
        if not self.api_key:
            return "its api_key is empty; set AZURE_OPENAI_API_KEY"
        return "" if self.base_url else "its base_url is empty; it is https://{resource}.openai.azure.com"

    def price_table(self) -> str:
        """Return what the price table calls Azure."""
        return "azure"

    def build(self, name: str) -> "Azure":
        """Make the provider."""
        return Azure(self)


class Azure(OpenAI):
    """Sends chat completions to a deployment, and its answers back."""

    def __init__(self, options: AzureOptions) -> None:
        version = options.api_version
        row = Vendor(
            base_url="",
            docs="https://learn.microsoft.com/azure/ai-foundry/openai/reference",
            stream_options="refused" if version and version < COUNTS_STREAMS else "known",
            surfaces=("chat",) if version else ("chat", "responses"),
            keeps_responses=not version,
        )
        headers = {
            "content-type": "application/json",
            "api-key": options.api_key.reveal(),
            **{name.lower(): value for name, value in options.headers.items()},
        }
        # People copy the address with or without the path.
        resource = options.base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai")
        super().__init__(row, f"{resource}/openai", headers)
        self._version = version

    def at(self, attempt: Attempt, path: str) -> str:
        """Return the URL of `path` at the deployment; at the resource, where the body says which, or none is meant."""
        if not self._version:
            return f"{self._base_url}/v1{path}"
        deployment = quote(attempt.deployment.model, safe="")
        where = f"/deployments/{deployment}" if deployment else ""
        return f"{self._base_url}{where}{path}?api-version={self._version}"
