"""The engine's side of the runtime: start supervisors, talk to them, find them again (asyncio).

Connections speak the protocol of `docs/internals/supervisor.md`. Nothing here is needed
for a container to go on: the engine may be killed at any moment and adopts later.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Any

from orlop.base import log
from orlop.base.clock import SystemClock
from orlop.base.errors import OrlopError
from orlop.kernel.cgroup import Cgroup, detect
from orlop.procs.channel import Channel, Message, channel_pair
from orlop.procs.connection import Connection, ConnectionLost
from orlop.procs.zygote import Zygote
from orlop.runtime import rundir
from orlop.runtime.contract import (
    Attachment,
    Process,
    StartFailed,
    Stats,
    SupervisorLost,
    TaskGone,
    TaskStuck,
    open_attachment,
)
from orlop.runtime.spec import (
    AttachSpec,
    ContainerSpec,
    EndpointSpec,
    ExecSpec,
    ExitRecord,
    NameServerSpec,
    ResourceSpec,
    to_json,
)
from orlop.runtime.speccodec import endpoint_spec_from_json, exit_record_from_json

__all__ = ["SupervisedExec", "SupervisedRuntime", "SupervisedTask"]

EXIT_KILLED = 137
_ADOPT_STEP_S = 0.02
_ADOPT_LIMIT_S = 5.0
_WORDS_LIMIT_S = 1.0
_ANSWER_LIMIT_S = 10.0
_SIGNAL_LIMIT_S = 5.0
_LONG_LIMIT_S = 60.0  # for what the kernel may take its time with


class SupervisedRuntime:
    """The embedded runtime: one supervisor process per container, forked by the zygote."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self._tasks: set[SupervisedTask] = set()

    async def start(self, spec: ContainerSpec, attachments: Sequence[Attachment] = ()) -> SupervisedTask:
        """See `contract.Runtime.start`. If cancelled, the container is killed."""
        rundir.clear(spec.run_dir)
        ours, theirs = channel_pair()
        sockets = [item.socket for item in attachments]
        payload = {"spec": to_json(spec), "attachments": [to_json(item.spec) for item in attachments]}
        try:
            fds = [theirs.fileno(), *(sock.fileno() for sock in sockets)]
            child = await self._zygote.spawn("supervisor", payload, fds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for sock in sockets:
                sock.close()
        child.close()
        connection = Connection(ours, name=f"supervisor of {spec.id[:12]}")
        try:
            return await self._first_words(connection, spec.run_dir)
        except asyncio.CancelledError:
            connection.post("kill")
            raise

    async def _first_words(self, connection: Connection, run_dir: str) -> SupervisedTask:
        try:
            state = (await connection.request("wait-started")).body
        except ConnectionLost as error:
            record = await asyncio.to_thread(_bury_lost, run_dir)
            if record is not None and record.error:
                raise StartFailed(record.error, exit_code=record.exit_code, step="start") from error
            raise SupervisorLost("the supervisor ended while it started the container") from error
        except OrlopError:
            connection.close()
            raise
        return self._task(connection, run_dir, state)

    async def adopt(self, run_dir: str) -> SupervisedTask | ExitRecord | None:
        """See `contract.Runtime.adopt`."""
        deadline = asyncio.get_running_loop().time() + _ADOPT_LIMIT_S
        while True:
            if (ended := rundir.read_exit(run_dir)) is not None:
                return ended
            if (task := await self._find(run_dir)) is not None:
                return task
            record = rundir.read_record(run_dir)
            if record is None:
                return None
            is_alive = rundir.is_alive(record.supervisor_pid, record.supervisor_ticks)
            if is_alive and asyncio.get_running_loop().time() > deadline:
                log.error("a start that does not end is given up", container=record.id)
                rundir.kill_supervisor(record)
                is_alive = False
            if not is_alive:
                return await asyncio.to_thread(_bury_lost, run_dir)
            await asyncio.sleep(_ADOPT_STEP_S)

    async def _find(self, run_dir: str) -> SupervisedTask | None:
        """The running container; None when nobody listens, or it is not (yet, any more) running.

        The word of a supervisor that is slow or wedged is not waited for: its record says what we need.
        """
        sock = rundir.connect(run_dir)
        if sock is None:
            return None
        connection = Connection(Channel(sock), name="supervisor")
        try:
            async with asyncio.timeout(_WORDS_LIMIT_S):
                state = (await connection.request("wait-started")).body
        except (ConnectionLost, StartFailed, TaskGone):
            connection.close()
            return None  # it has just ended: its exit record is there or about to be
        except TimeoutError:
            record = rundir.read_record(run_dir)
            if record is None or not record.started_at_ns:
                connection.close()
                return None
            log.warning("a supervisor does not answer", container=record.id, pid=record.supervisor_pid)
            state = {"id": record.id, "pid": record.init_pid, "started_at_ns": record.started_at_ns}
        except BaseException:
            connection.close()
            raise
        return self._task(connection, run_dir, state)

    async def aclose(self) -> None:
        """Drop all connections; containers go on."""
        for task in list(self._tasks):
            task.close()

    def _task(self, connection: Connection, run_dir: str, state: dict[str, Any]) -> SupervisedTask:
        task = SupervisedTask(connection, run_dir, state, self._tasks.discard)
        self._tasks.add(task)
        return task


class SupervisedTask:
    """A connection to one supervisor; see `contract.Task`."""

    def __init__(self, connection: Connection, run_dir: str, state: dict[str, Any], on_close: Any) -> None:
        self.id = str(state["id"])
        self.pid = int(state["pid"])
        self.started_at_ns = int(state["started_at_ns"])
        self._connection = connection
        self._run_dir = run_dir
        self._on_close = on_close

    def close(self) -> None:
        """Let go of the supervisor; the container goes on. May be repeated."""
        self._connection.close()
        self._on_close(self)

    async def wait(self) -> ExitRecord:
        """See `contract.Task.wait`. A lost supervisor yields 137 and its name in `error`."""
        try:
            return exit_record_from_json((await self._connection.request("wait-exit")).body)
        except ConnectionLost:
            record = await asyncio.to_thread(_bury_lost, self._run_dir)
            if record is None:
                raise SupervisorLost(f"the run dir of container {self.id} is gone") from None
            return record
        finally:
            if not self._connection.is_open:
                self._on_close(self)

    async def signal(self, number: int, *, all_processes: bool = False) -> None:
        """See `contract.Task.signal`."""
        body = {"number": number, "all_processes": all_processes}
        await self._ask("signal", body, limit_s=_SIGNAL_LIMIT_S)

    async def attach(self, spec: AttachSpec) -> socket.socket:
        """See `contract.Task.attach`."""
        return (await self.attach_at(spec))[0]

    async def attach_at(self, spec: AttachSpec) -> tuple[socket.socket, int]:
        """See `contract.Task.attach_at`."""
        ours, theirs = open_attachment(spec)
        asked_ns = SystemClock().now_ns()
        try:
            reply = await self._ask("attach", {"spec": to_json(spec)}, [theirs.socket.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.socket.close()
        return ours, int(reply.get("at_ns", asked_ns))  # supervisors of an older engine do not say it

    async def resize(self, rows: int, columns: int, exec_id: str | None = None) -> None:
        """See `contract.Task.resize`."""
        await self._ask("resize", {"rows": rows, "columns": columns, "exec_id": exec_id})

    async def exec(self, spec: ExecSpec, attach: AttachSpec | None = None) -> SupervisedExec:
        """See `contract.Task.exec`."""
        body: dict[str, Any] = {"spec": to_json(spec)}
        if attach is None:
            reply = await self._ask("exec", body, limit_s=_LONG_LIMIT_S)
            return SupervisedExec(self, spec.id, int(reply["pid"]), None)
        ours, theirs = open_attachment(attach)
        body["attach"] = to_json(attach)
        try:
            reply = await self._ask("exec", body, [theirs.socket.fileno()], _LONG_LIMIT_S)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.socket.close()
        return SupervisedExec(self, spec.id, int(reply["pid"]), ours)

    async def find_exec(self, exec_id: str) -> SupervisedExec | None:
        """See `contract.Task.find_exec`."""
        for item in (await self._ask("exec-list"))["execs"]:
            if item["id"] == exec_id:
                return SupervisedExec(self, exec_id, int(item["pid"]), None)
        return None

    async def attach_endpoint(self, spec: EndpointSpec) -> None:
        """See `contract.Task.attach_endpoint`."""
        await self._ask("endpoint-attach", {"endpoint": to_json(spec)})

    async def detach_endpoint(self, endpoint_id: str) -> None:
        """See `contract.Task.detach_endpoint`."""
        await self._ask("endpoint-detach", {"endpoint_id": endpoint_id})

    async def serve_names(self, spec: NameServerSpec) -> None:
        """See `contract.Task.serve_names`."""
        await self._ask("serve-names", {"name_server": to_json(spec)})

    async def endpoints(self) -> list[EndpointSpec]:
        """See `contract.Task.endpoints`."""
        return [endpoint_spec_from_json(item) for item in (await self._ask("endpoint-list"))["endpoints"]]

    async def close_stdin(self) -> None:
        """See `contract.Task.close_stdin`."""
        await self._ask("close-stdin")

    async def pause(self) -> None:
        """See `contract.Task.pause`."""
        await self._ask("pause", limit_s=_LONG_LIMIT_S)

    async def unpause(self) -> None:
        """See `contract.Task.unpause`."""
        await self._ask("unpause", limit_s=_LONG_LIMIT_S)

    async def is_paused(self) -> bool:
        """See `contract.Task.is_paused`."""
        return bool((await self._ask("is-paused", limit_s=_WORDS_LIMIT_S))["is_paused"])

    async def wait_oom(self, seen: int | None) -> int:
        """See `contract.Task.wait_oom`."""
        return int((await self._ask("wait-oom", {"seen": seen}, limit_s=None))["count"])

    async def clear_log(self) -> None:
        """See `contract.Task.clear_log`."""
        await self._ask("clear-log")

    async def stats(self) -> Stats:
        """See `contract.Task.stats`."""
        data = await self._ask("stats")
        for name in ("blkio", "blkio_ops"):
            data[name] = [tuple(row) for row in data[name]]
        return Stats(**data)

    async def update(self, resources: ResourceSpec) -> None:
        """See `contract.Task.update`."""
        await self._ask("update", {"resources": to_json(resources)}, limit_s=_LONG_LIMIT_S)

    async def top(self) -> list[Process]:
        """See `contract.Task.top`."""
        return [Process(**item) for item in (await self._ask("top"))["processes"]]

    async def put_down(self) -> None:
        """See `contract.Task.put_down`. What is left after the supervisor is buried by `wait`."""
        record = rundir.read_record(self._run_dir)
        if record is not None:
            rundir.kill_supervisor(record)

    async def _ask(
        self,
        op: str,
        body: dict[str, Any] | None = None,
        fds: Sequence[int] = (),
        limit_s: float | None = _ANSWER_LIMIT_S,
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(limit_s):
                reply: Message = await self._connection.request(op, body, fds)
        except ConnectionLost:
            raise TaskGone(f"container {self.id} is not running") from None
        except TimeoutError:
            raise TaskStuck(
                f"the supervisor of container {self.id} does not answer",
                hint="it may have been stopped by a signal; a forced removal of the container ends it",
            ) from None
        return reply.body

    async def exec_exit_code(self, exec_id: str) -> int:
        """The exit code of one exec; 137 when the whole container ended first."""
        try:
            return int((await self._ask("exec-wait", {"exec_id": exec_id}, limit_s=None))["exit_code"])
        except TaskGone:
            return EXIT_KILLED

    async def exec_signal(self, exec_id: str, number: int) -> None:
        """Signal the process of one exec."""
        await self._ask("signal", {"number": number, "exec_id": exec_id})


class SupervisedExec:
    """A further process; see `contract.ExecTask`."""

    def __init__(self, task: SupervisedTask, exec_id: str, pid: int, stream: socket.socket | None) -> None:
        self.id = exec_id
        self.pid = pid
        self.stream = stream
        self._task = task

    async def wait(self) -> int:
        """See `contract.ExecTask.wait`."""
        return await self._task.exec_exit_code(self.id)

    async def signal(self, number: int) -> None:
        """See `contract.ExecTask.signal`."""
        await self._task.exec_signal(self.id, number)

    async def resize(self, rows: int, columns: int) -> None:
        """See `contract.ExecTask.resize`."""
        await self._task.resize(rows, columns, self.id)


def _bury_lost(run_dir: str) -> ExitRecord | None:
    """The exit record; if the supervisor died without one, kill what it left and write it.

    Blocks for as long as the kernel takes to end the processes.
    """
    if (ended := rundir.read_exit(run_dir)) is not None:
        return ended
    record = rundir.read_record(run_dir)
    if record is None:
        return None
    # It may be about to finish: its last step is the exit record.
    if rundir.is_alive(record.supervisor_pid, record.supervisor_ticks):
        rundir.wait_gone(record.supervisor_pid, timeout_s=5.0)
        if (ended := rundir.read_exit(run_dir)) is not None:
            return ended
    log.error("supervisor lost; killing its container", container=record.id, pid=record.supervisor_pid)
    cgroup = Cgroup(record.cgroup, detect())
    with contextlib.suppress(OSError):
        cgroup.kill()
        cgroup.destroy()
    lost = ExitRecord(
        EXIT_KILLED, SystemClock().now_ns(), error="supervisor-lost", started_at_ns=record.started_at_ns
    )
    rundir.write_exit_at(run_dir, lost)
    return lost
