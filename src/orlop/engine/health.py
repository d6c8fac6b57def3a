"""Health checks: probes run as execs at intervals; what they say becomes the container's health.

`Verdict` and `judge` are pure. The monitor of a container lives from its start to its exit.
Times are on the monotonic clock; the log keeps the last five probes, their output cut at 4 KiB.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

from orlop.base import ids, log
from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import OrlopError
from orlop.engine.launch import process_spec
from orlop.engine.model import Container
from orlop.engine.requests import ContainerConfig, HealthConfig
from orlop.engine.services import Services, emit
from orlop.engine.views import HealthLog
from orlop.runtime.contract import StartFailed, Task
from orlop.runtime.spec import AttachSpec, ExecSpec

__all__ = ["HealthChecks", "Verdict", "judge", "probe_command"]

_NANO = 1_000_000_000
_DEFAULT_INTERVAL_S = 30.0
_DEFAULT_TIMEOUT_S = 30.0
_DEFAULT_START_INTERVAL_S = 5.0
_DEFAULT_RETRIES = 3
_OUTPUT_LIMIT = 4096
_SIGKILL = 9
_TIMED_OUT = -1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is believed after a probe."""

    health: str
    failing_streak: int
    has_passed: bool


def judge(before: Verdict, exit_code: int, retries: int, *, is_starting: bool) -> Verdict:
    """Believe a probe: one success makes healthy, `retries` failures in a row unhealthy.

    Failures in the start period do not count until the first success.
    """
    if exit_code == 0:
        return Verdict("healthy", 0, has_passed=True)
    if is_starting and not before.has_passed:
        return before
    streak = before.failing_streak + 1
    return Verdict("unhealthy" if streak >= retries else before.health, streak, before.has_passed)


def probe_command(check: HealthConfig | None, config: ContainerConfig) -> tuple[str, ...] | None:
    """The command to run; None without a check."""
    if check is None or not check.test or check.test[0] in ("NONE", ""):
        return None
    if check.test[0] == "CMD-SHELL":
        return (*(config.shell or ("/bin/sh", "-c")), *check.test[1:2])
    return check.test[1:] or None


class HealthChecks:
    """The monitors of all running containers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._monitors: dict[str, asyncio.Task[None]] = {}

    def started(self, container: Container) -> None:
        """Begin to probe, if the container has a check."""
        config = container.record.config
        command = probe_command(config.healthcheck, config)
        if command is None or config.healthcheck is None:
            if container.state.health:
                container.change(health="")
            return
        assert container.task is not None, "hooks run while the container does"
        container.failing_streak = 0
        container.health_log.clear()
        container.change(health="starting")
        monitor = _Monitor(self._services, container, container.task, config.healthcheck, command)
        self._monitors[container.id] = self._services.background.spawn(
            monitor.run(), name=f"health {container.id[:12]}"
        )

    def ended(self, container: Container) -> None:
        """Stop probing."""
        monitor = self._monitors.pop(container.id, None)
        if monitor is not None:
            monitor.cancel()
            if container.state.health == "starting":
                container.change(health="unhealthy")


class _Monitor:
    def __init__(
        self,
        services: Services,
        container: Container,
        task: Task,
        check: HealthConfig,
        command: tuple[str, ...],
    ) -> None:
        self._services = services
        self._container = container
        self._task = task
        self._command = command
        self._interval_s = check.interval / _NANO or _DEFAULT_INTERVAL_S
        self._timeout_s = check.timeout / _NANO or _DEFAULT_TIMEOUT_S
        self._start_period_s = check.start_period / _NANO
        self._start_interval_s = check.start_interval / _NANO or _DEFAULT_START_INTERVAL_S
        self._retries = check.retries or _DEFAULT_RETRIES
        self._verdict = Verdict("starting", 0, has_passed=False)
        self._began_s = services.clock.monotonic_s()

    def _is_starting(self) -> bool:
        age_s = self._services.clock.monotonic_s() - self._began_s
        return not self._verdict.has_passed and age_s < self._start_period_s

    async def run(self) -> None:
        while True:
            starting = self._is_starting()
            pause_s = min(self._start_interval_s, self._interval_s) if starting else self._interval_s
            await asyncio.sleep(pause_s)
            starting = self._is_starting()
            result = await self._probe()
            if self._container.task is not self._task:
                return
            self._believe(result, is_starting=starting)

    def _believe(self, result: HealthLog, *, is_starting: bool) -> None:
        container = self._container
        container.health_log.append(result)
        self._verdict = judge(self._verdict, result.exit_code, self._retries, is_starting=is_starting)
        container.failing_streak = self._verdict.failing_streak
        if self._verdict.health != container.state.health:
            container.change(health=self._verdict.health)
            emit(self._services, container, f"health_status: {self._verdict.health}")

    async def _probe(self) -> HealthLog:
        clock = self._services.clock
        start_ns = clock.now_ns()
        try:
            code, output = await self._run_command()
        except StartFailed as error:
            code, output = error.exit_code, error.message.encode()
        except OrlopError as error:
            log.debug("health check could not run", container=self._container.id, error=error)
            code, output = _TIMED_OUT, error.message.encode()
        return HealthLog(
            start=format_rfc3339_nano(start_ns),
            end=format_rfc3339_nano(clock.now_ns()),
            exit_code=code,
            output=output[:_OUTPUT_LIMIT].decode("utf-8", "replace"),
        )

    async def _run_command(self) -> tuple[int, bytes]:
        process = process_spec(self._container.record, self._services.defaults, self._command)
        spec = ExecSpec(ids.new_hex_id(), process)
        exec_task = await self._task.exec(spec, AttachSpec(False, True, True))
        output = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                if exec_task.stream is not None:
                    await _collect(exec_task.stream, output)
                return await exec_task.wait(), _payload(bytes(output))
        except TimeoutError:
            await exec_task.signal(_SIGKILL)
            text = f"Health check exceeded timeout ({self._timeout_s:g}s)"
            return _TIMED_OUT, text.encode()
        finally:
            if exec_task.stream is not None:
                exec_task.stream.close()


async def _collect(stream: socket.socket, output: bytearray) -> None:
    """Read to the end; what is beyond the limit is read and dropped."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(stream, 1 << 16):
        if len(output) < 4 * _OUTPUT_LIMIT:
            output += data


def _payload(frames: bytes) -> bytes:
    """The data of stdcopy frames, as far as they are whole."""
    from orlop.wire.stdstream import FrameDecoder, StreamInvalid

    try:
        return b"".join(data for _, data in FrameDecoder().feed(frames))
    except StreamInvalid:
        return frames
