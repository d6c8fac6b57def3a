"""exec and update."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace

from orlop.base.errors import OrlopError
from orlop.bundle import launch
from orlop.bundle.command.calling import Call, Verb
from orlop.bundle.command.creating import connect_console, preserved_fds
from orlop.bundle.command.flags import Flag, Parsed
from orlop.bundle.config import Capabilities, Config, Process, User, parse_process
from orlop.bundle.config_linux import Resources, parse_resources
from orlop.bundle.reading import Reader
from orlop.bundle.records import read_limited
from orlop.bundle.refusal import Refused, WrongState

__all__ = ["VERBS"]

_EXIT_EXEC_FAILED = 255


def execute(call: Call) -> int:
    """exec: a further process; 255 when it could not be started, as runc has it."""
    try:
        return _execute(call)
    except (OrlopError, OSError, ValueError) as error:
        message = error.message if isinstance(error, OrlopError) else str(error)
        if isinstance(error, launch.InitFailed):
            message = f"unable to start container process: {message}"
        failure = Refused(f"exec failed: {message}")
        failure.facts["exit_code"] = _EXIT_EXEC_FAILED
        raise failure from error


def _execute(call: Call) -> int:
    from orlop.bundle import entering, foreground

    parsed = call.parsed
    record, status = call.container()
    if status == "stopped":
        raise WrongState("cannot exec in a stopped container")
    if status == "paused" and not parsed.is_set("ignore-paused"):
        raise WrongState("cannot exec in a paused container (use --ignore-paused to override)")
    config = call.store.config(record.id)
    wanted = _process(parsed, config)
    is_detached, console_path = parsed.is_set("detach"), parsed.text("console-socket")
    pair = None
    if wanted.has_terminal and not console_path:
        if is_detached:
            raise Refused("cannot allocate tty if runtime will detach without setting console socket")
        pair = foreground.ConsolePair()
    elif console_path and not wanted.has_terminal:
        raise Refused("cannot use console socket if runtime will not detach or allocate tty")
    entry = entering.Entry(
        wanted,
        pair.theirs.fileno() if pair else connect_console(console_path),
        preserved_fds(parsed.number("preserve-fds")),
        parsed.text("cgroup"),
    )

    def started(pid: int) -> None:
        if parsed.text("pid-file"):
            launch.write_pid_file(parsed.text("pid-file"), pid)

    if not is_detached:
        foreground.hold_signals()
    pid, pidfd = entering.enter_container(record, config, entry, started)
    if is_detached:
        return 0
    master = pair.master() if pair else -1
    with foreground.raw_terminal() if pair else contextlib.nullcontext():
        return foreground.wait_for(pid, pidfd, master)


def _process(parsed: Parsed, config: Config) -> Process:
    if parsed.text("process"):
        given = parse_process(read_limited(parsed.text("process")))
        return replace(given, has_terminal=True) if parsed.is_set("tty") else given
    base = config.process
    if base is None:
        raise Refused("process: is missing")
    args = tuple(parsed.words[1:])
    if not args:
        raise Refused("process args cannot be empty")
    changes = replace(
        base,
        args=args,
        cwd=parsed.text("cwd") or base.cwd,
        env=(*base.env, *parsed.texts("env")),
        user=_user(parsed, base.user),
        has_terminal=parsed.is_set("tty"),
        console_size=(0, 0),
        capabilities=_with_capabilities(base.capabilities, parsed.texts("cap")),
        no_new_privileges=parsed.is_set("no-new-privs") or base.no_new_privileges,
        apparmor_profile=parsed.text("apparmor") or base.apparmor_profile,
        selinux_label=parsed.text("process-label") or base.selinux_label,
    )
    if not changes.cwd.startswith("/"):
        raise Refused("process.cwd: Cwd must be an absolute path")
    return changes


def _user(parsed: Parsed, base: User) -> User:
    extra = tuple(_id(text) for text in parsed.texts("additional-gids"))
    user = parsed.text("user")
    if not user:
        return replace(base, additional_gids=(*base.additional_gids, *extra))
    uid, colon, gid = user.partition(":")
    return User(_id(uid), _id(gid) if colon else base.gid, (*base.additional_gids, *extra), base.umask)


def _id(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) >= 2**32 - 1:
        raise Refused(f"invalid id {text!r}: numbers are taken here")
    return int(text)


def _with_capabilities(base: Capabilities | None, names: list[str]) -> Capabilities | None:
    """--cap adds to three sets, and to the ambient one what is inheritable already, as runc does."""
    if not names:
        return base
    old = base or Capabilities()
    return Capabilities(
        bounding=(*old.bounding, *names),
        effective=(*old.effective, *names),
        inheritable=old.inheritable,
        permitted=(*old.permitted, *names),
        ambient=(*old.ambient, *(name for name in names if name in old.inheritable)),
    )


_RESOURCE_FLAGS = {
    "blkio-weight": "block_io_weight",
    "cpu-period": "cpu_period",
    "cpu-quota": "cpu_quota",
    "cpu-burst": "cpu_burst",
    "cpu-share": "cpu_shares",
    "cpu-rt-period": "cpu_realtime_period",
    "cpu-rt-runtime": "cpu_realtime_runtime",
    "cpu-idle": "cpu_idle",
    "memory": "memory_limit",
    "memory-reservation": "memory_reservation",
    "memory-swap": "memory_swap",
    "pids-limit": "pids_limit",
}


def update(call: Call) -> int:
    """update: other limits for a container that exists."""
    from orlop.bundle import limits
    from orlop.oci.strictjson import decode

    parsed = call.parsed
    record, status = call.container()
    if status == "stopped":
        raise WrongState("container not running")
    if source := parsed.text("resources"):
        data = sys.stdin.buffer.read(1 << 20) if source == "-" else read_limited(source)
        resources = parse_resources(Reader(decode(data, "resources", allow_uint64=True), "resources"))
    else:
        numbers = {
            field: _bytes(parsed.text(name)) if name.startswith("memory") else parsed.number(name)
            for name, field in _RESOURCE_FLAGS.items()
            if parsed.is_set(name)
        }
        resources = replace(Resources(), cpus=parsed.text("cpuset-cpus"), mems=parsed.text("cpuset-mems"))
        resources = replace(resources, **numbers)  # type: ignore[arg-type]
    limits.apply_resources(record.cgroup(), replace(resources, devices=()))
    return 0


def _bytes(text: str) -> int:
    """`64m` as bytes."""
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    lowered = text.lower().removesuffix("b")
    unit = units.get(lowered[-1:], 1)
    digits = lowered if unit == 1 else lowered[:-1]
    if not digits.removeprefix("-").isdecimal():
        raise Refused(f"invalid size {text!r}")
    return int(digits) * unit


VERBS = {
    "exec": Verb(
        execute,
        "run a further process in a container",
        "<container-id> <command> [arguments]",
        {
            "console-socket": Flag(help="unix socket that receives the terminal"),
            "cwd": Flag(help="working directory"),
            "env": Flag("list", "e", "NAME=value, may be repeated"),
            "tty": Flag("flag", "t", "with a terminal"),
            "user": Flag(short="u", help="uid[:gid]"),
            "additional-gids": Flag("list", "g", "further groups"),
            "process": Flag(short="p", help="file with a process document"),
            "detach": Flag("flag", "d", "do not wait for its end"),
            "pid-file": Flag(help="file that gets the process id"),
            "process-label": Flag(help="SELinux label"),
            "apparmor": Flag(help="AppArmor profile"),
            "no-new-privs": Flag("flag", help="no exec gains privileges"),
            "cap": Flag("list", "c", "a further capability"),
            "preserve-fds": Flag("number", help="descriptors from 3 on that the program keeps"),
            "cgroup": Flag(help="a cgroup below the container's"),
            "ignore-paused": Flag("flag", help="also when it is paused; it waits for resume"),
            "no-subreaper": Flag("flag", help="accepted: the command is none"),
        },
        (1, None),
    ),
    "update": Verb(
        update,
        "change the limits of a container",
        flags={
            "resources": Flag(short="r", help="file with a resources document, - for standard input"),
            "cpuset-cpus": Flag(help="CPUs"),
            "cpuset-mems": Flag(help="memory nodes"),
            **{name: Flag(help=field.replace("_", " ")) for name, field in _RESOURCE_FLAGS.items()},
        },
    ),
}
