"""Work that is done to its end even when whoever asked for it goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from orlop.aio.scope import Background

__all__ = ["finish"]

T = TypeVar("T")


async def finish(background: Background, work: Coroutine[Any, Any, T]) -> T:
    """Run something to its end; its failure is raised here.

    A client that hangs up half-way through a start leaves a started container, never half of one.
    """
    task = background.spawn(_outcome(work), name="finish")
    result, error = await asyncio.shield(task)
    if error is not None:
        raise error
    return cast("T", result)


async def _outcome(work: Coroutine[Any, Any, T]) -> tuple[T | None, Exception | None]:
    """The result or the failure as a value: it is the caller's, not the background's."""
    try:
        return await work, None
    except Exception as error:  # noqa: BLE001 - raised again by `finish`
        return None, error
