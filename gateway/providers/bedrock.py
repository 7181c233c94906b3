"""Amazon Bedrock's Converse API, spoken for clients of chat completions.

What a request keeps, loses and is refused for is said in `bedrock_request`. Neither an answer nor a stream names itself
or its model. Sources: docs.aws.amazon.com/bedrock, "Converse", "ConverseStream", "Troubleshooting API error codes".
"""

import re
from typing import ClassVar
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import field

from gateway.core.call import Attempt, Operation
from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.model import NOTHING_KNOWN, ModelFacts
from gateway.core.reply import Chunk
from gateway.core.route import Prefill
from gateway.core.secret import Secret
from gateway.providers.anthropic_request import shown_facts
from gateway.providers.base import Keyed, ModelPage, Provider, Request
from gateway.providers.bedrock_answer import ConverseDecoder, whole_events
from gateway.providers.bedrock_embeddings import BedrockEmbeddings
from gateway.providers.bedrock_errors import failed
from gateway.providers.bedrock_frames import Frames
from gateway.providers.bedrock_models import Family, family_of
from gateway.providers.bedrock_request import converse_request
from gateway.providers.embeddings import Embeddings
from gateway.providers.failures import UNREADABLE, error_object
from gateway.providers.masking import without_credentials
from gateway.providers.model_lists import bedrock_page
from gateway.providers.reader import EventReader
from gateway.providers.sigv4 import Credentials, signed
from gateway.providers.skipping import must_be_exact
from gateway.wire.chat_request import chat_request
from gateway.wire.openai import ChatWriter

SERVICE = "bedrock"
"""What AWS signs Bedrock's runtime by."""


class BedrockOptions(Keyed, frozen=True, kw_only=True):
    """Amazon Bedrock, by an API key or an AWS access key. A model is an id, an inference profile, or an ARN."""

    api_key: Secret = Secret()
    """A Bedrock API key. It goes before the access key; with neither the provider is off."""
    access_key_id: Secret = Secret()
    """An AWS access key, with which requests are signed."""
    secret_access_key: Secret = Secret()
    """Its secret, which never leaves the gateway."""
    session_token: Secret = Secret()
    """Belongs to temporary access keys."""
    region: str = ""
    """Where, such as `us-east-1`."""
    base_url: str = ""
    """Where the API is, for a VPC endpoint or a proxy; the region's own address when left out."""
    behind: dict[str, str] = field(default_factory=dict[str, str])
    """By ARN, the model behind it, where the ARN does not say (application inference profiles, provisioned throughput):
    how it is told to think, and what else it takes, depends on it."""

    key_variable: ClassVar[str] = "AWS_BEARER_TOKEN_BEDROCK"

    def __post_init__(self) -> None:
        """Check the region, which becomes a part of an address.

        Raises:
            ValueError: it is none.
        """
        if not re.fullmatch(r"[a-z0-9-]*", self.region):
            raise ValueError(f'"{self.region}" is no region; write one like us-east-1')

    def off(self) -> str:
        """It needs a key, and a region to sign for and to be in."""
        if self.api_key:
            return "" if self.region or self.base_url else "its region is empty; set AWS_REGION"
        if not (self.access_key_id or self.secret_access_key):
            return f"its api_key is empty; set {self.key_variable}, or access_key_id and secret_access_key"
        needed = {
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "region": self.region,
        }
        missing = [name for name, value in needed.items() if not value]
        return f"its {missing[0]} is empty; set AWS_{missing[0].upper()}" if missing else ""

    def price_table(self) -> str:
        """AWS's prices, at AWS's own addresses."""
        host = urlsplit(self.base_url).hostname or ""
        return "aws" if not self.base_url or host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else ""

    def facts(self, model: str) -> ModelFacts:
        """Return what is known of a Claude."""
        return shown_facts(self.behind.get(model, model)) if self.family(model).claude else NOTHING_KNOWN

    def prefill(self, model: str) -> Prefill:
        """Claude up to 4.5 does."""
        known = self.family(model).claude
        return "plain" if known is not None and known.prefill else "none"

    def family(self, model: str) -> Family:
        """Return what `model`, or the one behind it, takes."""
        return family_of(self.behind.get(model, model))

    def build(self, name: str) -> "Bedrock":
        """Make the provider."""
        return Bedrock(self)


class Bedrock:
    """Translates chat completions to conversations, and back."""

    def __init__(self, options: BedrockOptions) -> None:
        self._family = options.family
        self._region = options.region
        domain = "amazonaws.com.cn" if options.region.startswith("cn-") else "amazonaws.com"
        self._base_url = (options.base_url or f"https://bedrock-runtime.{options.region}.{domain}").rstrip("/")
        secrets = (options.access_key_id, options.secret_access_key, options.session_token)
        self._credentials = None if options.api_key else Credentials(*secrets)
        bearer = {"authorization": f"Bearer {options.api_key.reveal()}"} if options.api_key else {}
        self._headers = {
            "content-type": "application/json",
            **bearer,
            **{name.lower(): value for name, value in options.headers.items()},
        }
        self.beside_chat: dict[Operation, Provider] = {
            "embeddings": Embeddings(BedrockEmbeddings(self, options.behind), self.error)
        }
        self._hidden = self._headers | {f"credential {at}": secret.reveal() for at, secret in enumerate(secrets)}

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: Bedrock has no way to say this.
        """
        model = attempt.deployment.model
        body = converse_request(chat_request(attempt.body.raw), attempt.body, model, self._family(model))
        return self.sent(attempt, "converse-stream" if attempt.stream else "converse", msgspec.json.encode(body))

    def sent(self, attempt: Attempt, method: str, body: bytes) -> Request:
        """Return the request for what `method` does at an attempt's model: signed, unless there is an API key."""
        model = quote(attempt.deployment.model, safe="")  # an ARN has slashes, and ids have colons
        request = Request(f"{self._base_url}/model/{model}/{method}", body, dict(self._headers))
        return self._signed(request, attempt.clock.wall())

    def reader(self, attempt: Attempt) -> EventReader:
        """Return a reader for a streamed answer."""
        exact = must_be_exact(attempt, calls_come_whole=False)
        return EventReader(ConverseDecoder(), _writer(attempt), splitter=Frames(), exact=exact)

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said, or it went wrong.
        """
        try:
            events = whole_events(body)
        except UNREADABLE:
            events = None
        if events is None:
            told = error_object(body)["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no message: {told}")
        return _writer(attempt).whole(events)

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for the list of models, which is one page, at the control plane beside the runtime."""
        url = f"{self._base_url.replace('://bedrock-runtime.', '://bedrock.', 1)}/foundation-models"
        return self._signed(Request(url, b"", dict(self._headers), "GET"), wall_s)

    def listed(self, body: bytes) -> ModelPage:
        """Return which models there are.

        Raises:
            Unreachable: it is no list of models.
        """
        return bedrock_page(body)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means: its name stands in a header, `ThrottlingException:http://…`."""
        error = error_object(without_credentials(body, self._hidden))
        name = headers.get("x-amzn-errortype", "") or str(error.get("__type") or error.get("code") or "")
        return failed(name, error, status=status, headers=headers)

    def _signed(self, request: Request, wall_s: float) -> Request:
        if self._credentials is None:
            return request
        return signed(request, self._credentials, region=self._region, service=SERVICE, wall_s=wall_s)


def _writer(attempt: Attempt) -> ChatWriter:
    return ChatWriter(attempt.id, attempt.model, int(attempt.clock.wall()))
