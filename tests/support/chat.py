"""`beamlit run` with one model, `chat`, as tests of its life want it."""

from __future__ import annotations

from pathlib import Path

from tests.support.beamlit import Product, Start, ask, eventually
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.forked import Forked
from tests.support.network import unused_port


class Chat:
    """A product of one test, and its one model."""

    def __init__(self, home: Path, backends: Backends, start: Start = Forked) -> None:
        self.product = Product(home, start)
        self.port = unused_port()
        self._backends = backends
        self.save()

    def text(self, *, ready: bool = True, **annotations: str) -> str:
        """All its objects; an annotation is named without its prefix."""
        return text_of(
            model("chat", self._backends.remote, {f"beamlit.com/{name}": text for name, text in annotations.items()}),
            service("chat", self.port),
            endpoints("chat", *self._backends.local, ready=ready),
        )

    def save(self, ready: bool = True) -> None:
        self.product.save("chat.yaml", self.text(ready=ready))

    async def served(self) -> None:
        await self.product.programmed("chat")
        await eventually(lambda: ask(self.port), lambda reply: reply.side == "local")
