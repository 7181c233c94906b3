"""OpenAI, and every vendor that speaks its dialect: what a client sends goes on as it came, and so does the answer.

What vendors do otherwise is data: `config/vendors.yaml`.
"""

import re
from hashlib import sha256
from typing import Any

import msgspec

from gateway.core.call import Attempt
from gateway.core.errors import BadRequest, Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.route import Prefill
from gateway.core.usage import Usage
from gateway.providers.base import Keyed, ModelPage, Reader, Request
from gateway.providers.beside import beside_openai
from gateway.providers.failures import UNREADABLE, brief
from gateway.providers.forward import ForwardReader
from gateway.providers.masking import without_credentials
from gateway.providers.model_lists import openai_page
from gateway.providers.openai_clean import whole_in
from gateway.providers.openai_errors import failure_of, is_error
from gateway.providers.openai_mend import json_object, mend_whole, unseen_chars
from gateway.providers.openai_reader import ChatReader
from gateway.providers.openai_usage import mend_usage, usage_of
from gateway.providers.responses import ResponseDecoder, native_body, used_in, whole_response
from gateway.providers.vendors import Vendor, name_at, vendor, vendor_at, vendor_names

COUNTS = b'{"include_usage":true}'
"""`stream_options` that say what is asked for anyway, and as it is written here."""


class OpenAIOptions(Keyed, frozen=True, kw_only=True):
    """OpenAI, a vendor that speaks its dialect, or such a server of your own."""

    organization: str = ""
    """OpenAI's organisation to charge, where a key may charge several."""
    project: str = ""
    """OpenAI's project to charge, where a key may charge several."""
    vendor: str = ""
    """Whose ways to expect of the server; found out by `kind` and `base_url` when left out."""

    def __post_init__(self) -> None:
        """Check that `vendor` is known.

        Raises:
            ValueError: it is not.
        """
        if self.vendor:
            vendor(self.vendor)

    @property
    def row(self) -> Vendor:
        """What is known of the server."""
        name = self.vendor or (self.kind if self.kind in vendor_names() and self.kind != "openai" else "")
        if name or not self.base_url:
            return vendor(name or "openai")
        return vendor_at(self.base_url) or Vendor(base_url=self.base_url, docs="", key="optional")

    def off(self) -> str:
        """It needs a key, unless it is a server of one's own."""
        row = self.row
        return "" if self.api_key or row.key == "optional" else f"its api_key is empty; set {row.key_variable}"

    def price_table(self) -> str:
        """Return what the price table calls the vendor; empty: nobody knows the prices of a server of one's own."""
        return self.row.price_table

    def known_as(self) -> str:
        """Return the vendor; empty: a server of one's own may have any model, under any name."""
        return self.vendor or (name_at(self.base_url) if self.base_url else self.kind or "openai")

    def prefill(self, model: str) -> Prefill:
        """Return what is known of the vendor."""
        return self.row.prefill

    def build(self, name: str) -> "OpenAI":
        """Make the provider."""
        headers = {"content-type": "application/json"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key.reveal()}"
        if self.organization:
            headers["openai-organization"] = self.organization
        if self.project:
            headers["openai-project"] = self.project
        headers |= {name.lower(): value for name, value in self.headers.items()}
        return OpenAI(self.row, self.base_url, headers)


class OpenAI:
    """Sends chat completions on, and their answers back.

    Args:
        row: what the vendor does otherwise than OpenAI.
        base_url: where it is; empty: where the row says.
        headers: of every request, with lower-case names. The client's own headers, its credential first of all, never
            leave the gateway.
    """

    def __init__(self, row: Vendor, base_url: str, headers: dict[str, str]) -> None:
        self.surfaces = frozenset(row.surfaces)
        self.keeps = row.keeps
        self.keeps_responses = row.keeps_responses
        self._row = row
        self._base_url = (base_url or row.base_url).rstrip("/")
        self.headers = headers
        self.beside_chat = beside_openai(self, row)

    def request(self, attempt: Attempt) -> Request:
        """Return what to send: all fields as they came, but for those that this vendor calls otherwise.

        Raises:
            BadRequest: `stream_options` or `messages` are not what they should be.
        """
        if attempt.surface == "responses":
            body = native_body(attempt, keeps=self.keeps_responses).but(model=attempt.deployment.model)
            return Request(self.at(attempt, "/responses"), body, dict(self.headers))
        changes: dict[str, object] = {"model": attempt.deployment.model}
        row, fields = self._row, attempt.body.fields
        if row.drops or row.renames:
            changes |= row.renamed(fields)
        if row.stream_options == "refused":
            changes["stream_options"] = None
        elif attempt.stream and bytes(fields.get("stream_options", b"")) != COUNTS:
            changes["stream_options"] = {**_options(attempt), "include_usage": True}
        if row.wants_reasoning or row.tool_call_ids == "nine":
            changes["messages"] = _with_calls_as_wanted(attempt, row)
        return Request(self.at(attempt, "/chat/completions"), attempt.body.but(**changes), dict(self.headers))

    def at(self, attempt: Attempt, path: str) -> str:
        """Return the URL of `path` there."""
        return self._base_url + path

    def used_in(self, response: bytes) -> Usage | None:
        """Return what a response used; `None`: it does not say."""
        return used_in(response, self._row)

    def kept_request(self, attempt: Attempt, method: str, path: str) -> Request:
        """Return what to ask about a response that the upstream keeps; see `base.KeepsResponses`."""
        return Request(self.at(attempt, "/responses" + path), b"", dict(self.headers), method)

    def reader(self, attempt: Attempt) -> Reader:
        """Return a reader for a streamed answer."""
        if attempt.surface == "responses":
            return ForwardReader(ResponseDecoder(self._row))
        return ChatReader(attempt, self._row)

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer; the bytes as they came where nothing has to be mended.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        if attempt.surface == "responses":
            return whole_response(body, self._row)
        body = body.strip()  # DeepSeek keeps the connection alive by empty lines
        if (chunk := whole_in(body, self._row, attempt.deployment.model)) is not None:
            return chunk
        try:
            said = json_object(body)
            if is_error(said):
                raise failure_of(body)
            changed = mend_whole(said, attempt)
        except UNREADABLE:
            raise Unreachable(f"the upstream answered 200, but with no completion: {_shown(body)}") from None
        used: Any = said.get("usage")
        if isinstance(used, dict):
            changed |= mend_usage(said["usage"], self._row)
        model = attempt.deployment.model
        usage = usage_of(said.get("usage"), self._row, tier=said.get("service_tier"), model=model)
        if used and usage is None:
            del said["usage"]
            changed = True
        choice: dict[str, Any] = said["choices"][0]
        content = choice["message"].get("content")
        text = content if isinstance(content, str) else ""
        unseen = sum(unseen_chars(other["message"]) for other in said["choices"])
        return Chunk(
            msgspec.json.encode(said) if changed else body, text, usage, choice["finish_reason"], unseen=unseen
        )

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        return failure_of(without_credentials(body, self.headers), status, headers)

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for the list of models, which is one page."""
        return Request(f"{self._base_url}/models", b"", dict(self.headers), "GET")

    def listed(self, body: bytes) -> ModelPage:
        """Return which models there are.

        Raises:
            Unreachable: it is no list of models.
        """
        return openai_page(body)


def _options(attempt: Attempt) -> dict[str, Any]:
    """Return the client's own `stream_options`.

    Raises:
        BadRequest: they are no object.
    """
    try:
        return attempt.body.get("stream_options", dict[str, Any] | None) or {}
    except msgspec.ValidationError:
        raise BadRequest("stream_options: expected an object", param="stream_options", code="invalid_type") from None


def _with_calls_as_wanted(attempt: Attempt, row: Vendor) -> object:
    """Return the messages, their tool calls as this vendor wants them: with ids of its form, where it has one; and with
    the `reasoning_content` of the turn, which clients do not keep.

    Raises:
        BadRequest: they are no list of objects.
    """
    raw = attempt.body.fields.get("messages")
    if raw is None or b'"tool_call' not in bytes(raw):
        return raw
    try:
        messages = _objects.decode(raw) or []
        for message in messages:
            if row.wants_reasoning and "tool_calls" in message:
                message.setdefault("reasoning_content", msgspec.Raw(b'""'))
            if row.tool_call_ids == "nine":
                _shorten(message, "tool_call_id")
                calls = _objects.decode(message.get("tool_calls", b"null")) or []
                for call in calls:
                    _shorten(call, "id")
                if calls:
                    message["tool_calls"] = msgspec.Raw(msgspec.json.encode(calls))
    except msgspec.ValidationError:
        raise BadRequest("messages: expected a list of objects", param="messages", code="invalid_type") from None
    return messages


_objects: msgspec.json.Decoder[list[dict[str, msgspec.Raw]] | None] = msgspec.json.Decoder(
    list[dict[str, msgspec.Raw]] | None
)


def _shorten(said: dict[str, msgspec.Raw], name: str) -> None:
    """Write an id in nine letters and digits, the same for a call and its result; one that is right stays."""
    if name not in said:
        return
    id = msgspec.json.decode(said[name], type=str)
    if not re.fullmatch(r"[a-zA-Z0-9]{9}", id):
        said[name] = msgspec.Raw(f'"{sha256(id.encode()).hexdigest()[:9]}"'.encode())


def _shown(body: bytes) -> str:
    """Say what an answer is that is no completion."""
    if body.startswith((b"data:", b"event:", b": ")):
        return "a stream that was not asked for"
    return brief(body[:100_000].decode("utf-8", "replace"))[:200] or "nothing"
