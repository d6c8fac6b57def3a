"""Health checks: probes run as execs at intervals; what they say becomes the container's health.

`Verdict` and `judge` are pure. The monitor of a container lives from its start to its exit, and there is
never more than one probe of it: the next interval begins when a probe has ended. A frozen container is not
probed and keeps its health. The log keeps the last five probes, their output cut at 4 KiB. What an engine
knew goes on with the next one, but for the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orlop.base import ids, log
from orlop.base.clock import format_rfc3339_nano
from orlop.base.errors import OrlopError
from orlop.engine.execs import told_words
from orlop.engine.launch import process_spec
from orlop.engine.lifecycle import Status
from orlop.engine.model import Container
from orlop.engine.requests import ContainerConfig, HealthConfig
from orlop.engine.services import Services, emit
from orlop.engine.views import HealthLog
from orlop.runtime.contract import ExecTask, StartFailed, Task, TaskGone
from orlop.runtime.spec import AttachSpec, ExecSpec

__all__ = ["HealthChecks", "Verdict", "judge", "pause_s", "probe_command"]

_NANO = 1_000_000_000
_DEFAULT_INTERVAL_S = 30.0
_DEFAULT_TIMEOUT_S = 30.0
_DEFAULT_START_INTERVAL_S = 5.0
_DEFAULT_RETRIES = 3
_OUTPUT_LIMIT = 4096
_SIGKILL = 9
_TIMED_OUT = -1
_KILLED = "137"
_END_WAIT_S = 10.0  # for a probe that was killed: its successor waits for it


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
    """The monitors of all running containers.

    Args:
        services: the engine's.
        on_failing: called after every failed probe of an unhealthy container.
    """

    def __init__(
        self, services: Services, on_failing: Callable[[Container, HealthLog], None] | None = None
    ) -> None:
        self._services = services
        self._on_failing = on_failing
        self._monitors: dict[str, asyncio.Task[None]] = {}
        self.on_probe: Callable[[HealthLog], None] | None = None  # counts

    def started(self, container: Container) -> None:
        """Begin to probe, if the container has a check."""
        self._begin(container, is_adopted=False)

    def adopted(self, container: Container) -> None:
        """Go on where the engine before this one was."""
        self._begin(container, is_adopted=True)

    def _begin(self, container: Container, *, is_adopted: bool) -> None:
        config = container.record.config
        command = probe_command(config.healthcheck, config)
        if command is None or config.healthcheck is None:
            if container.state.health:
                container.change(health="", failing_streak=0)
            return
        assert container.task is not None, "hooks run while the container does"
        if not is_adopted or not container.state.health:
            container.health_log.clear()
            container.change(health="starting", failing_streak=0)
        monitor = _Monitor(self._services, container, container.task, config.healthcheck, command)
        monitor.on_failing = self._on_failing
        monitor.on_probe = self.on_probe
        self._monitors[container.id] = self._services.background.spawn(
            monitor.run(), name=f"health {container.id[:12]}"
        )

    def ended(self, container: Container) -> None:
        """Stop probing."""
        monitor = self._monitors.pop(container.id, None)
        if monitor is not None:
            monitor.cancel()
            container.change(health="unhealthy")  # as dockerd says of what does not run


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
        state = container.state
        self._verdict = Verdict(state.health, state.failing_streak, has_passed=state.health == "healthy")
        age_s = max(services.clock.now_ns() - task.started_at_ns, 0) / _NANO
        self._start_ends_s = services.clock.monotonic_s() + self._start_period_s - age_s
        self.on_failing: Callable[[Container, HealthLog], None] | None = None
        self.on_probe: Callable[[HealthLog], None] | None = None

    def _start_left_s(self) -> float:
        """What is left of the start period; 0 once the container was healthy."""
        if self._verdict.has_passed:
            return 0.0
        return max(self._start_ends_s - self._services.clock.monotonic_s(), 0.0)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(pause_s(self._start_left_s(), self._interval_s, self._start_interval_s))
            if self._is_frozen():
                continue
            starting = self._start_left_s() > 0
            result = await self._probe()
            if self._container.task is not self._task:
                return
            if not self._is_frozen():  # a frozen probe says nothing
                self._believe(result, is_starting=starting)

    def _is_frozen(self) -> bool:
        return self._container.status is Status.PAUSED

    def _believe(self, result: HealthLog, *, is_starting: bool) -> None:
        container = self._container
        container.health_log.append(result)
        if self.on_probe is not None:
            self.on_probe(result)
        self._verdict = judge(self._verdict, result.exit_code, self._retries, is_starting=is_starting)
        health, streak = self._verdict.health, self._verdict.failing_streak
        is_new = health != container.state.health
        if is_new or streak != container.state.failing_streak:
            container.change(health=health, failing_streak=streak)
            self._services.catalog.save_soon(container)
        if is_new:
            emit(self._services, container, f"health_status: {health}")
        if health == "unhealthy" and result.exit_code != 0 and self.on_failing is not None:
            self.on_failing(container, result)

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
            output=_cut(output),
        )

    async def _run_command(self) -> tuple[int, bytes]:
        process = process_spec(self._container.record, self._services.defaults, self._command)
        spec = ExecSpec(ids.new_hex_id(), process)
        with self._told(spec.id) as ended:
            exec_task = await self._task.exec(spec, AttachSpec(False, True, True))
            code, output = await self._finish(exec_task)
            ended(code)
        return code, output

    @contextlib.contextmanager
    def _told(self, exec_id: str) -> Iterator[Callable[[int], None]]:
        """A probe is an exec like others to those who listen to events."""

        def tell(action: str, **facts: str) -> None:
            emit(self._services, self._container, action, execID=exec_id, **facts)

        tell(f"exec_create: {told_words(self._command)}")
        tell(f"exec_start: {told_words(self._command)}")
        code = _TIMED_OUT

        def ended(exit_code: int) -> None:
            nonlocal code
            code = exit_code

        try:
            yield ended
        except StartFailed:
            raise  # it never lived: no event of its death
        except BaseException:
            tell("exec_die", exitCode=_KILLED)
            raise
        tell("exec_die", exitCode=str(code) if code >= 0 else _KILLED)

    async def _finish(self, exec_task: ExecTask) -> tuple[int, bytes]:
        output = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                if exec_task.stream is not None:
                    await _collect(exec_task.stream, output)
                return await exec_task.wait(), _payload(bytes(output))
        except TimeoutError:
            await _end(exec_task)
            text = f"Health check exceeded timeout ({_go_duration(self._timeout_s)})".encode()
            said = _payload(bytes(output))
            return _TIMED_OUT, text + b": " + said if said else text
        except asyncio.CancelledError:
            await _end(exec_task)
            raise
        finally:
            if exec_task.stream is not None:
                exec_task.stream.close()


def pause_s(start_left_s: float, interval_s: float, start_interval_s: float) -> float:
    """How long to wait for the next probe; one comes at once when the start period is over."""
    if start_left_s <= 0:
        return interval_s
    return min(start_left_s, start_interval_s, interval_s)


async def _end(exec_task: ExecTask) -> None:
    """Kill a probe and wait until it is gone, so that probes never pile up."""
    with contextlib.suppress(TaskGone, TimeoutError):
        await exec_task.signal(_SIGKILL)
        if exec_task.stream is not None:
            exec_task.stream.close()
        await asyncio.wait_for(exec_task.wait(), _END_WAIT_S)


def _cut(output: bytes) -> str:
    text = output[:_OUTPUT_LIMIT].decode("utf-8", "replace")
    return f"{text}..." if len(output) > _OUTPUT_LIMIT else text


def _go_duration(seconds: float) -> str:
    """`500ms`, `1.5s`, `2m0s`: as Go prints it, for the lengths that a timeout has."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    head = f"{hours}h" if hours else ""
    return f"{head}{minutes}m{rest:g}s" if hours or minutes else f"{rest:g}s"


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
