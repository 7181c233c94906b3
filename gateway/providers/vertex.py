"""Google's Vertex AI: Gemini and Claude at one address, in their makers' own dialects, by Google's credentials.

What is asked and answered is what `gemini` and `anthropic` say; here stands only where and how it is asked. Whoever
speaks messages reaches Claude with them as they came. Sources: cloud.google.com/vertex-ai/generative-ai/docs, "Generate
content with the Gemini API", "Request predictions with Claude models"; anthropic's and Google's own Python clients.
"""

import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import quote, urlsplit

from gateway.core.call import Attempt, Surface
from gateway.core.errors import UpstreamFailed
from gateway.core.model import ModelFacts
from gateway.core.reply import Chunk
from gateway.core.route import Prefill
from gateway.core.secret import Secret
from gateway.providers.anthropic import Anthropic
from gateway.providers.anthropic_request import facts, shown_facts
from gateway.providers.base import CHAT_ONLY, Grant, Keyed, Reader, Request
from gateway.providers.failures import error_object
from gateway.providers.gemini import Gemini
from gateway.providers.google_credentials import Credential, credential

CLAUDE_VERSION = "vertex-2023-10-16"
"""The version of Anthropic's API; said in the body, and there is no other."""
EVERYWHERE = "global"
AREAS = ("us", "eu")
"""Locations that are several regions."""


class VertexOptions(Keyed, frozen=True, kw_only=True):
    """Gemini and Claude, at Google's Vertex AI. A model is `gemini-…`, or `claude-…`, with its date: `…@20250929`."""

    credentials: Secret = Secret()
    """The JSON of a service account's key or of `gcloud auth application-default login`, the path of a file that has
    it, or `metadata`: the account of the machine, on Google Cloud."""
    api_key: Secret = Secret()
    """An access token that is ready, as `gcloud auth print-access-token` prints it: good for an hour. It goes before
    `credentials`; with neither the provider is off."""
    project: str = ""
    """The project that is asked, by its id; the credential's own when left out."""
    location: str = EVERYWHERE
    """Where: a region such as `europe-west4`, or `us`, `eu`, `global`."""
    base_url: str = ""
    """Where the API is, for Private Service Connect or a proxy; the location's own address when left out."""

    key_variable: ClassVar[str] = "GOOGLE_APPLICATION_CREDENTIALS"
    documents: ClassVar[frozenset[str]] = frozenset({"credentials"})

    def __post_init__(self) -> None:
        """Check what becomes a part of an address.

        Raises:
            ValueError: it is none.
        """
        if not re.fullmatch(r"[a-z0-9-]+", self.location):
            raise ValueError(f'"{self.location}" is no location; write one like europe-west4, or global')
        if not re.fullmatch(r"[a-z0-9.:-]*", self.project):  # old ones have a domain in front: `example.com:name`
            raise ValueError(f'"{self.project}" is no id of a project; write one like my-project-123')

    def off(self) -> str:
        """It needs a credential that can be used, and a project to ask."""
        if not self.api_key and not self.credentials:
            return f"its credentials are empty; set {self.key_variable}"
        try:
            found = self.credential()
        except OSError as error:
            return f"the file of its credentials cannot be read ({error.strerror or 'no such path'})"
        except ValueError as error:
            return f"its credentials cannot be used: {error}"
        return "" if self.project or found.project else "its project is empty; set GOOGLE_CLOUD_PROJECT"

    def credential(self) -> Credential:
        """Return the credential that tokens are asked for with; none, where there is a token.

        Raises:
            OSError: its file cannot be read.
            ValueError: it is none that can be used.
        """
        return Credential(None) if self.api_key else credential(self.credentials)

    def price_table(self) -> str:
        """Google's prices, Claude's there among them, at Google's own addresses."""
        host = urlsplit(self.base_url).hostname or ""
        return "google" if not self.base_url or host.endswith(".googleapis.com") else ""

    def facts(self, model: str) -> ModelFacts:
        """Return what is known of a Claude."""
        return shown_facts(model)

    def prefill(self, model: str) -> Prefill:
        """Claude up to 4.5 does."""
        return "plain" if is_claude(model) and facts(model).prefill else "none"

    def build(self, name: str) -> "Vertex":
        """Make the provider."""
        found = self.credential()
        bearer = {"authorization": f"Bearer {self.api_key.reveal()}"} if self.api_key else {}
        quota = {"x-goog-user-project": found.quota_project} if found.quota_project else {}
        place = f"projects/{self.project or found.project}/locations/{self.location}"
        headers = bearer | quota | {name.lower(): value for name, value in self.headers.items()}
        return Vertex(self._base_url(), place, headers, found.grant)

    def _base_url(self) -> str:
        if self.base_url:
            return re.sub(r"/v1(beta1)?$", "", self.base_url.rstrip("/"))
        if self.location == EVERYWHERE:
            return "https://aiplatform.googleapis.com"
        if self.location in AREAS:
            return f"https://aiplatform.{self.location}.rep.googleapis.com"
        return f"https://{self.location}-aiplatform.googleapis.com"


class Vertex:
    """Two translators under one name: which of them is asked, the model says.

    Args:
        base_url: without the version of the API.
        place: `projects/…/locations/…`.
        headers: with lower-case names.
        grant: what access tokens are asked for with; `None`: `headers` have one.
    """

    def __init__(self, base_url: str, place: str, headers: Mapping[str, str], grant: Grant | None) -> None:
        self.grant = grant
        self._gemini = Gemini(f"{base_url}/v1beta1/{place}/publishers/google/models/", headers)
        self._claude = Claude(f"{base_url}/v1/{place}/publishers/anthropic", headers)

    def surfaces(self, model: str) -> frozenset[Surface]:
        """Return those whose bytes go on to `model` as they came."""
        return Claude.surfaces if is_claude(model) else CHAT_ONLY

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: the model's dialect has no way to say this.
        """
        return self._of(attempt).request(attempt)

    def reader(self, attempt: Attempt) -> Reader:
        """Return a reader for a streamed answer."""
        return self._of(attempt).reader(attempt)

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        return self._of(attempt).whole(attempt, body)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means: Google's own, whichever the model, or what Anthropic's server has said."""
        speaks_google = isinstance(error_object(body).get("status"), str)
        return (self._gemini if speaks_google else self._claude).error(status, headers, body)

    def _of(self, attempt: Attempt) -> "Gemini | Claude":
        return self._claude if is_claude(attempt.deployment.model) else self._gemini


class Claude(Anthropic):
    """Anthropic's dialect, but that the address says the model and the body the version."""

    passed: ClassVar[tuple[str, ...]] = ("anthropic-beta",)

    def url(self, attempt: Attempt) -> str:
        """Return the model's address."""
        method = "streamRawPredict" if attempt.stream else "rawPredict"
        return f"{self._base_url}/models/{quote(attempt.deployment.model, safe='@')}:{method}"

    def named(self, attempt: Attempt) -> dict[str, str | None]:
        """Return the fields that say which version, and take out which model."""
        return {"model": None, "anthropic_version": CLAUDE_VERSION}


def is_claude(model: str) -> bool:
    """Tell whether Anthropic's dialect is spoken to `model`."""
    return model.startswith("claude-")
