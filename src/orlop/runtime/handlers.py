"""What each request of the supervisor's protocol does (docs/internals/supervisor.md)."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orlop.base.clock import SystemClock
from orlop.base.errors import InvalidInput
from orlop.runtime import contain, monitor
from orlop.runtime.contract import TaskGone, TaskRefused
from orlop.runtime.server import PROTOCOL_VERSION, Handler, Pending
from orlop.runtime.spec import AttachSpec
from orlop.runtime.speccodec import (
    attach_spec_from_json,
    endpoint_spec_from_json,
    exec_spec_from_json,
    name_server_spec_from_json,
    resource_spec_from_json,
)
from orlop.runtime.supervised import Supervised

if TYPE_CHECKING:
    from orlop.runtime.supervisor import Supervisor

__all__ = ["Handlers"]

Body = dict[str, Any]


class Handlers:
    """The table of requests. Most containers are never asked most of it: each part is built when it is."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._built: dict[str, Handler] = {}

    def get(self, op: str) -> Handler | None:
        """What answers `op`; None for an unknown one."""
        if op not in self._built and op in _PARTS:
            self._built.update(_PARTS[op](self._supervisor))
        return self._built.get(op)


def _waiting_handlers(supervisor: Supervisor) -> dict[str, Handler]:
    return {
        "wait-started": lambda _body, _fds, pending: supervisor.wait_started(pending),
        "wait-exit": lambda _body, _fds, pending: supervisor.wait_exit(pending),
        "wait-oom": lambda body, _fds, pending: supervisor.ooms.wait(body.get("seen"), pending),
    }


def _other_handlers(supervisor: Supervisor) -> dict[str, Handler]:
    return {
        "hello": lambda *_: {"version": PROTOCOL_VERSION, "id": supervisor.spec.id},
        "clear-log": lambda *_: supervisor.clear_log(),
    }


def _process_handlers(supervisor: Supervisor) -> dict[str, Handler]:
    def target(body: Body) -> Supervised:
        exec_id = body.get("exec_id")
        return supervisor.execs.running(exec_id) if exec_id else supervisor.running()

    def signal_(body: Body, _: list[int], __: Pending) -> Body:
        number = int(body["number"])
        if number not in signal.valid_signals() and number != 0:
            raise InvalidInput(f"invalid signal number {number}")
        process = target(body)
        try:
            _signal_all(supervisor, number) if body.get("all_processes") else process.signal(number)
        except ProcessLookupError as error:
            raise TaskGone(f"container {supervisor.spec.id} is not running") from error
        if number == signal.SIGKILL and supervisor.cgroup.is_frozen():
            supervisor.cgroup.thaw()  # a frozen process does not even die
        return {}

    def resize(body: Body, _: list[int], __: Pending) -> Body:
        target(body).resize(int(body["rows"]), int(body["columns"]))
        return {}

    def attach(body: Body, fds: list[int], _: Pending) -> Body:
        spec, sock = _take_attachment(body["spec"], fds)
        try:
            target(body).streams.attach(spec, sock)
        except BaseException:
            sock.close()
            raise
        return {"at_ns": SystemClock().now_ns()}  # the log has all before it, the stream all after it

    def close_stdin(body: Body, _: list[int], __: Pending) -> Body:
        target(body).streams.close_input()
        return {}

    def kill(*_: object) -> Body:
        """End the container even if it has not begun."""
        if supervisor.init is not None and supervisor.init.exit_code is None:
            supervisor.init.signal(signal.SIGKILL)
        return {}

    return {"kill": kill, "signal": signal_, "resize": resize, "attach": attach, "close-stdin": close_stdin}


def _exec_handlers(supervisor: Supervisor) -> dict[str, Handler]:
    def start(body: Body, fds: list[int], pending: Pending) -> Body | None:
        spec = exec_spec_from_json(body["spec"])
        attach = _take_attachment(body["attach"], fds) if body.get("attach") else None
        try:
            return supervisor.execs.start(spec, attach, pending)
        except BaseException:
            if attach is not None:
                attach[1].close()
            raise

    return {
        "exec": start,
        "exec-wait": lambda body, _fds, pending: supervisor.execs.wait(str(body["exec_id"]), pending),
        "exec-list": lambda *_: {"execs": supervisor.execs.state()},
    }


def _endpoint_handlers(supervisor: Supervisor) -> dict[str, Handler]:
    def attach(body: Body, _: list[int], __: Pending) -> Body:
        try:
            supervisor.endpoints.attach(endpoint_spec_from_json(body["endpoint"]), supervisor.running().pid)
        except OSError as error:
            raise TaskRefused(f"cannot make the interface: {error.strerror}") from error
        return {}

    def detach(body: Body, _: list[int], __: Pending) -> Body:
        try:
            supervisor.endpoints.detach(str(body["endpoint_id"]))
        except OSError as error:
            raise TaskRefused(f"cannot remove the interface: {error.strerror}") from error
        return {}

    def serve_names(body: Body, _: list[int], __: Pending) -> Body:
        supervisor.running()
        try:
            supervisor.serve_names(name_server_spec_from_json(body["name_server"]))
        except OSError as error:
            raise TaskRefused(f"cannot serve names: {error.strerror}") from error
        return {}

    return {
        "serve-names": serve_names,
        "endpoint-attach": attach,
        "endpoint-detach": detach,
        "endpoint-list": lambda *_: {"endpoints": supervisor.endpoints.state()},
    }


def _resource_handlers(supervisor: Supervisor) -> dict[str, Handler]:
    cgroup = supervisor.cgroup

    def pause(*_: object) -> Body:
        supervisor.running()
        cgroup.freeze()
        return {}

    def unpause(*_: object) -> Body:
        supervisor.running()
        cgroup.thaw()
        return {}

    def update(body: Body, _: list[int], __: Pending) -> Body:
        try:
            contain.apply_limits(cgroup, resource_spec_from_json(body["resources"]))
        except OSError as error:
            raise TaskRefused(
                f"cannot update the limits: {error.strerror}",
                hint="the container may use more than the new limit, or a cgroup above it allows less",
            ) from error
        return {}

    def stats(*_: object) -> Body:
        return monitor.read_stats(cgroup, supervisor.running().pid)

    def top(*_: object) -> Body:
        supervisor.running()
        return {"processes": monitor.processes(cgroup)}

    return {
        "pause": pause,
        "unpause": unpause,
        "is-paused": lambda *_: {"is_paused": cgroup.is_frozen()},
        "update": update,
        "stats": stats,
        "top": top,
    }


def _take_attachment(spec: Body, fds: list[int]) -> tuple[AttachSpec, socket.socket]:
    if not fds:
        raise InvalidInput("an attachment comes with a socket")
    return attach_spec_from_json(spec), socket.socket(fileno=fds.pop(0))


def _signal_all(supervisor: Supervisor, number: int) -> None:
    for pid in supervisor.cgroup.pids():
        try:
            process_fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(process_fd, number)
        except ProcessLookupError:
            continue
        finally:
            os.close(process_fd)


_PARTS: dict[str, Callable[[Supervisor], dict[str, Handler]]] = {
    **dict.fromkeys(("wait-started", "wait-exit", "wait-oom"), _waiting_handlers),
    **dict.fromkeys(("hello", "clear-log"), _other_handlers),
    **dict.fromkeys(("kill", "signal", "resize", "attach", "close-stdin"), _process_handlers),
    **dict.fromkeys(("exec", "exec-wait", "exec-list"), _exec_handlers),
    **dict.fromkeys(
        ("serve-names", "endpoint-attach", "endpoint-detach", "endpoint-list"), _endpoint_handlers
    ),
    **dict.fromkeys(("pause", "unpause", "is-paused", "update", "stats", "top"), _resource_handlers),
}
