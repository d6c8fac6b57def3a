"""create, start, run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket

from orlop.base.errors import OrlopError
from orlop.bundle import launch
from orlop.bundle.command import ending
from orlop.bundle.command.calling import Call, Verb
from orlop.bundle.command.flags import Flag
from orlop.bundle.config import parse_config
from orlop.bundle.hooks import HookFailed, run_hooks
from orlop.bundle.records import Record, Store, oci_state, read_limited
from orlop.bundle.refusal import Refused, Unsupported, WrongState
from orlop.procs.channel import Channel

__all__ = ["VERBS", "connect_console", "preserved_fds", "start_container"]


def create(call: Call) -> int:
    """create: everything up to the program."""
    try:
        console = connect_console(call.parsed.text("console-socket"))
        launch.create_container(call.store, _order(call, console))
    except (OrlopError, OSError, ValueError) as error:
        raise _told("create", error) from error
    return 0


def start(call: Call) -> int:
    """start: the program runs."""
    record, status = call.container()
    if status == "stopped":
        raise WrongState("cannot start a container that has stopped")
    if status != "created":
        raise WrongState("cannot start an already running container")
    start_container(call.store, record)
    return 0


def run(call: Call) -> int:
    """run: create and start, and without --detach wait and delete."""
    try:
        return _run(call)
    except (OrlopError, OSError, ValueError) as error:
        raise _told("run", error) from error


def _run(call: Call) -> int:
    from orlop.bundle import foreground

    is_detached = call.parsed.is_set("detach")
    console_path = call.parsed.text("console-socket")
    pair = None
    if not is_detached and not console_path and _wants_terminal(call.parsed.text("bundle") or "."):
        pair = foreground.ConsolePair()
    console = pair.theirs.fileno() if pair else connect_console(console_path)
    record = launch.create_container(call.store, _order(call, console))
    pidfd = record.pidfd()
    try:
        master = pair.master() if pair else -1
        if not is_detached:
            foreground.hold_signals()
        start_container(call.store, record)
    except BaseException:
        ending.delete_container(call.store, record, is_forced=True)
        raise
    if is_detached or pidfd is None:
        return 0
    with foreground.raw_terminal() if pair else contextlib.nullcontext():
        code = foreground.wait_for(record.pid, pidfd, master)
    if not call.parsed.is_set("keep"):
        ending.delete_container(call.store, record, is_forced=True)
    return code


def start_container(store: Store, record: Record) -> None:
    """Let init go on, and hear whether it could.

    Raises:
        OrlopError: it could not execute, or a hook failed; then the container has ended.
    """
    path = store.start_socket(record.id)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        os.unlink(path)  # by now it is ours to start, and nobody else's
    except (ConnectionRefusedError, FileNotFoundError):
        raise WrongState("cannot start a container that has stopped") from None
    finally:
        os.close(directory)
    channel = Channel(sock)
    try:
        message = channel.receive()
    finally:
        channel.close()
    if message is not None:
        raise launch.InitFailed(str(message.body.get("message", "unknown")))
    hooks = store.config(record.id).hooks
    try:
        run_hooks("poststart", hooks.poststart, json.dumps(oci_state(record, "running")).encode())
    except HookFailed:
        with contextlib.suppress(WrongState):  # it has ended by itself
            ending.signal_container(record, signal.SIGKILL)
        raise


def _wants_terminal(bundle: str) -> bool:
    with contextlib.suppress(OSError):
        process = parse_config(read_limited(os.path.join(bundle, "config.json"))).process
        return process is not None and process.has_terminal
    return False


def _order(call: Call, console: int) -> launch.Create:
    if call.parsed.is_set("no-pivot"):
        raise Unsupported("--no-pivot is not supported", hint="it would leave the host's mounts within reach")
    return launch.Create(
        id=call.parsed.words[0],
        bundle=call.parsed.text("bundle") or ".",
        console_socket=console,
        preserved_fds=preserved_fds(call.parsed.number("preserve-fds")),
        pid_file=call.parsed.text("pid-file"),
    )


def preserved_fds(count: int) -> int:
    """How many descriptors from 3 on are the program's, those of socket activation included.

    Raises:
        Refused: one of them is not open.
    """
    for fd in range(3, 3 + count):
        try:
            os.fstat(fd)
        except OSError:
            raise Refused(f"--preserve-fds: descriptor {fd} is not open") from None
    return count


def connect_console(path: str) -> int:
    """A connection to --console-socket, for the process to send its terminal through; -1 for none."""
    if not path:
        return -1
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_CLOEXEC)
    try:  # addresses of sockets end at 108 bytes
        sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
    finally:
        os.close(directory)
    return sock.detach()


def _told(verb: str, error: Exception) -> OrlopError:
    """The words that callers look for, with the reason at the end."""
    if isinstance(error, OrlopError) and not isinstance(error, launch.InitFailed):
        message, hint = error.message, error.hint
    else:
        message, hint = f"unable to start container process: {_reason(error)}", None
    return Refused(f"orlop-runtime {verb} failed: {message}", hint=hint)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        return f"{error.filename}: {text}" if isinstance(error.filename, str) else text
    return error.message if isinstance(error, OrlopError) else str(error)


_CREATE_FLAGS = {
    "bundle": Flag(short="b", help="directory with config.json (default: the current one)"),
    "console-socket": Flag(help="unix socket that receives the terminal"),
    "pid-file": Flag(help="file that gets the process id"),
    "preserve-fds": Flag("number", help="descriptors from 3 on that the program keeps"),
    "no-pivot": Flag("flag", help="not supported"),
    "no-new-keyring": Flag("flag", help="accepted: no keyring is made"),
    "pidfd-socket": Flag(help="not supported"),
}

VERBS = {
    "create": Verb(create, "make a container, up to its program", flags=_CREATE_FLAGS),
    "start": Verb(start, "run the program of a created container"),
    "run": Verb(
        run,
        "create and start a container",
        flags=_CREATE_FLAGS
        | {
            "detach": Flag("flag", "d", "do not wait for its end"),
            "keep": Flag("flag", help="do not delete it after its end"),
            "no-subreaper": Flag("flag", help="accepted: the command is none"),
        },
    ),
}
