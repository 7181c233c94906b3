"""The echo's embeddings: the same text has the same vector, and any two others have next to nothing in common."""

import hashlib
import math
import struct

import msgspec
from msgspec import Raw

from gateway.core.call import Attempt
from gateway.core.errors import BadRequest
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.providers.embeddings import answer_of, wanted_of

USUAL_DIMENSIONS = 64
MOST_DIMENSIONS = 4096
MOST_NUMBERS = 500_000
"""In all vectors of a call: they are made in one go."""


class EchoEmbeddings:
    """Makes vectors of length 1 out of a hash; they say nothing of what a text means. A word counts as a token."""

    def answer(self, attempt: Attempt) -> list[Chunk]:
        """Return the one chunk of the answer.

        Raises:
            BadRequest: a field is of the wrong type, or too much is asked for.
        """
        wanted = wanted_of(attempt.body, "the echo")
        dimensions = USUAL_DIMENSIONS if wanted.dimensions is None else wanted.dimensions
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise BadRequest(
                f"dimensions is at least 1 and at most {MOST_DIMENSIONS}; got {dimensions}",
                param="dimensions",
                code="invalid_value",
            )
        if not wanted.texts or len(wanted.texts) * dimensions > MOST_NUMBERS:
            most = MOST_NUMBERS // dimensions
            problem = f"the echo embeds at least 1 text of {dimensions} dimensions and at most {most}"
            raise BadRequest(f"{problem}; got {len(wanted.texts)}", param="input", code="invalid_value")
        vectors = [Raw(msgspec.json.encode(vector_of(text, dimensions))) for text in wanted.texts]
        return [answer_of(attempt, vectors, Usage(sum(len(text.split()) for text in wanted.texts)))]


def vector_of(text: str, dimensions: int) -> list[float]:
    """Return the vector of a text: as long, and as random, as a point on a sphere."""
    drawn = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(4 * dimensions)
    numbers = [number + 0.5 for number in struct.unpack(f"<{dimensions}i", drawn)]  # none is 0, nor are all of them
    length = math.hypot(*numbers)
    return [number / length for number in numbers]
