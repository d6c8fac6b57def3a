"""What an operation gives: layers, or the tree of the context."""

from __future__ import annotations

from dataclasses import dataclass

from orlop.oci.digest import Digest

__all__ = ["BuiltLayer", "ContextResult", "LayersResult", "Result", "StepResult"]


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A layer and when a build made it; None for layers of a base image."""

    diff_id: Digest
    created_ns: int | None = None


@dataclass(frozen=True, slots=True)
class LayersResult:
    """A root file system: layers, bottom first."""

    layers: tuple[BuiltLayer, ...] = ()

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """Without the times."""
        return tuple(layer.diff_id for layer in self.layers)

    def plus(self, layer: BuiltLayer) -> LayersResult:
        """With one more layer on top."""
        return LayersResult((*self.layers, layer))


@dataclass(frozen=True, slots=True)
class ContextResult:
    """The context that was sent with the build."""


Result = LayersResult | ContextResult


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a vertex came to its result."""

    result: LayersResult
    is_cached: bool
