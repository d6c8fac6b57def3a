"""What is done about a container whose health checks fail: an extension; Docker only shows the failure.

Asked for with `Orlop.HealthOnFailure` in the body of a create, or, by clients that know nothing of it,
with a label. The actions have Podman's names. A restart obeys the back-off of restart policies, whatever
the policy is, and is done by the next engine when this one dies in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orlop.base import log
from orlop.base.errors import InvalidInput, OrlopError
from orlop.engine.model import Container
from orlop.engine.requests import OrlopConfig
from orlop.engine.services import Services, emit
from orlop.engine.stopping import Stopper, stop_signal_of
from orlop.engine.views import HealthLog

__all__ = ["ACTIONS", "ACTION_LABEL", "HealthActions", "asked_action"]

ACTIONS = ("none", "kill", "restart", "stop")
ACTION_LABEL = "orlop.health-on-failure"
_REASON_LIMIT = 200


def asked_action(wanted: OrlopConfig, labels: Mapping[str, str] | None) -> OrlopConfig:
    """With the action that the request asks for, by field or by label; the field wins.

    Labels of an image ask for nothing: what is done with a container is its creator's business (I6).

    Raises:
        InvalidInput: there is no such action; told while somebody reads the answer.
    """
    label = (labels or {}).get(ACTION_LABEL, "")
    for value in (wanted.health_on_failure, label):
        if value and value not in ACTIONS:
            raise InvalidInput(
                f"invalid action on failing health {value[:60]!r}", hint=f"use one of {', '.join(ACTIONS)}"
            )
    return replace(wanted, health_on_failure=wanted.health_on_failure or label)


class HealthActions:
    """Acts on failing health; every action runs in the background, one at a time for a container."""

    def __init__(self, services: Services, stopper: Stopper) -> None:
        self._services = services
        self._stopper = stopper
        self._acting: set[str] = set()

    def failing(self, container: Container, probe: HealthLog) -> None:
        """A probe of an unhealthy container failed."""
        action = container.record.orlop.health_on_failure or "none"
        if action == "none" or container.id in self._acting or container.task is None:
            return
        self._acting.add(container.id)
        reason = probe.output.strip()[:_REASON_LIMIT]
        streak = str(container.state.failing_streak)
        log.info("container is unhealthy", container=container.id, action=action, streak=streak)
        emit(
            self._services,
            container,
            f"health_action: {action}",
            reason=reason,
            exitCode=str(probe.exit_code),
            failingStreak=streak,
        )
        self._services.later(self._act(container, action), f"unhealthy {container.id[:12]}")

    async def _act(self, container: Container, action: str) -> None:
        try:
            await self._end(container, action)
        except OrlopError as error:  # the next failing probe tries again
            log.error("unhealthy container could not be ended", container=container.id, error=error)
        finally:
            self._acting.discard(container.id)

    async def _end(self, container: Container, action: str) -> None:
        task = container.task
        if task is None:
            return
        match action:
            case "kill":  # then the restart policy decides
                await self._stopper.kill_hard(container, task)
            case "stop":
                await self._stopper.stop(container, timeout_s=None)
            case _:
                container.change(restarts_after_exit=True)
                self._services.catalog.save_soon(container)
                await self._stopper.end(container, task, stop_signal_of(container))
