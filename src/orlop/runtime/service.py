"""The engine's side of the runtime: start supervisors, talk to them, find them again.

Connections speak the protocol of `docs/internals/supervisor.md`. Nothing here is needed
for a container to go on: the engine may be killed at any moment and adopts later.
"""

from __future__ import annotations

from collections.abc import Sequence

from orlop.procs.zygote import Zygote
from orlop.runtime.contract import Attachment, Task
from orlop.runtime.spec import ContainerSpec, ExitRecord

__all__ = ["SupervisedRuntime"]


class SupervisedRuntime:
    """The embedded runtime: one supervisor process per container, forked by the zygote."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    async def start(self, spec: ContainerSpec, attachments: Sequence[Attachment] = ()) -> Task:
        """See `contract.Runtime.start`."""
        raise NotImplementedError

    async def adopt(self, run_dir: str) -> Task | ExitRecord | None:
        """See `contract.Runtime.adopt`."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Drop all connections; containers go on."""
