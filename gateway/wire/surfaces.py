"""The client surfaces, by the names that calls have for them."""

from collections.abc import Mapping

from gateway.core.call import Surface
from gateway.wire.messages import MessagesSurface
from gateway.wire.openai import ChatSurface
from gateway.wire.responses import ResponsesSurface
from gateway.wire.surface import ClientSurface

SURFACES: Mapping[Surface, ClientSurface] = {
    "chat": ChatSurface(),
    "messages": MessagesSurface(),
    "responses": ResponsesSurface(),
}
