"""What Bedrock's errors mean, as answers and within a stream."""

import re
from collections.abc import Mapping
from typing import Any

from gateway.core.errors import UpstreamFailed
from gateway.providers.failures import failure

STATUSES = {
    "AccessDeniedException": 403,
    "InternalServerException": 500,
    "ModelErrorException": 500,  # comes with a 424, and is no fault of the request's
    "ModelNotReadyException": 429,
    "ModelStreamErrorException": 500,  # 424 too
    "ModelTimeoutException": 408,
    "ResourceNotFoundException": 404,
    "ServiceQuotaExceededException": 429,  # comes with a 400
    "ServiceUnavailableException": 503,
    "ThrottlingException": 429,
    "ValidationException": 400,
}
"""What an error stands for, whatever status it came with; within a stream it has none."""

OF_THE_REQUEST = (400, 408, 413, 422, 429)
"""Statuses of the model's own server (`originalStatusCode`) that say more than that it failed."""


def failed(
    name: str, error: dict[str, Any], *, status: int = 500, headers: Mapping[str, str] | None = None
) -> UpstreamFailed:
    """Return what an error means.

    Args:
        name: as it came: `ThrottlingException:http://…`, `aws.foo#ThrottlingException`, `throttlingException`.
        error: as `error_object` returns it.
        status: that it came with.
        headers: that it came with, with lower-case names.
    """
    match = re.match(r"(?:[^:]*#)?([A-Za-z]{1,64})(?::|$)", name)
    code = match[1][0].upper() + match[1][1:] if match else ""
    status = STATUSES.get(code, status)
    original = error.get("originalStatusCode")
    if code.startswith("Model") and isinstance(original, int) and original in OF_THE_REQUEST:
        status = original
    message = error["message"] or error.get("Message") or error.get("originalMessage") or ""
    return failure(status, headers or {}, str(message), code=code or None)
