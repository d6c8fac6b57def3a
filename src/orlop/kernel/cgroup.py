"""Control groups of version 1, version 2 and hosts that run both, behind one `Cgroup`.

A host is described by `Host`: where the hierarchy of each v1 controller is mounted, and where
the unified (v2) one is. Three shapes occur: v2 only; v1 only; and hybrid, where v1 has the
controllers and v2 is mounted bare. A cgroup is the same relative path in every hierarchy. On a
hybrid host the bare v2 directory is used too: for `clone3`, for killing and freezing as a whole,
and for the device program.

Names are made by us or checked here; every directory carries its owner's id, so that a sweeper
can find what a crash left behind.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from orlop.kernel.cgroup_apply import apply_writes
from orlop.kernel.cgroup_limits import Limits, v1_writes, v2_writes
from orlop.kernel.cgroup_stats import Stats, flat_keyed, v1_stats, v2_stats
from orlop.kernel.filesystems import MountEntry, mount_table

__all__ = ["Cgroup", "Host", "Mode", "detect", "host_of"]

DEFAULT_PARENT = "orlop"

_V1_CONTROLLERS = frozenset({"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"})
_V2_CONTROLLERS = ("cpu", "cpuset", "memory", "io", "pids")
_COMPONENT = re.compile(r"[A-Za-z0-9_.:@-]{1,255}\Z")
_POLL_S = 0.002
UNIFIED = "unified"


class Mode(enum.Enum):
    """Which version carries the controllers."""

    V1 = "v1"
    V2 = "v2"
    HYBRID = "hybrid"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Host:
    """The hierarchies of this machine: controller -> mount point, and the unified mount point if any."""

    v1: Mapping[str, str]
    unified: str | None
    v2_controllers: frozenset[str]

    @property
    def mode(self) -> Mode:
        if not self.v1:
            return Mode.V2 if self.unified else Mode.NONE
        return Mode.HYBRID if self.unified else Mode.V1

    @property
    def version(self) -> int:
        """1 or 2: what `docker info` shows."""
        return 2 if self.mode is Mode.V2 else 1

    def hierarchies(self) -> list[str]:
        """Every distinct mount point; the unified one first."""
        found = [self.unified] if self.unified else []
        return found + sorted(set(self.v1.values()))


def detect() -> Host:
    """Look at the mounts of our own namespace."""
    return host_of(mount_table(), _read_text)


def host_of(table: list[MountEntry], read: Callable[[str], str]) -> Host:
    """The hierarchies in a mount table. `read` reads `cgroup.controllers`."""
    v1: dict[str, str] = {}
    unified = None
    for entry in table:
        target = os.fsdecode(entry.target)
        if entry.kind == "cgroup2":
            unified = unified or target
        elif entry.kind == "cgroup":
            for controller in _V1_CONTROLLERS & set(entry.super_options):
                v1.setdefault(controller, target)
    controllers = frozenset(read(f"{unified}/cgroup.controllers").split()) if unified else frozenset[str]()
    return Host(v1, unified, controllers)


class Cgroup:
    """One container's control group in all hierarchies; a handle without fds, cheap to make again.

    The object is a name for kernel state: dropping it destroys nothing, two objects with the
    same path are the same cgroup, and every method may be repeated.
    """

    __slots__ = ("host", "path")

    def __init__(self, path: str, host: Host) -> None:
        """`path` is relative to the root of each hierarchy, such as `orlop/<container id>`."""
        self.path = _checked(path)
        self.host = host

    # --- life ---

    def create(self) -> None:
        """Make the directories where missing, with the controllers and cpusets of the parents prepared."""
        for mount_point in self.host.hierarchies():
            if not self._create_last(mount_point):
                self._create_path(mount_point)

    def _create_last(self, mount_point: str) -> bool:
        """Make the directory where its parents are there and need nothing; False when they may not."""
        if self.host.mode is Mode.V2 or mount_point == self.host.v1.get("cpuset"):
            return False
        with contextlib.suppress(FileExistsError):
            try:
                os.mkdir(f"{mount_point}/{self.path}", 0o755)
            except FileNotFoundError:
                return False
        return True

    def _create_path(self, mount_point: str) -> None:
        here = mount_point
        for word in self.path.split("/"):
            self._prepare_parent(mount_point, here)
            here = f"{here}/{word}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(here, 0o755)
            if mount_point == self.host.v1.get("cpuset"):
                _inherit_cpuset(here)

    def _prepare_parent(self, mount_point: str, directory: str) -> None:
        """On v2, let children use the controllers; one that cannot be given is found missing by `apply`."""
        if mount_point != self.host.unified or self.host.mode is not Mode.V2:
            return
        given = _read_text(f"{directory}/cgroup.subtree_control").split()
        for controller in _V2_CONTROLLERS:
            if controller in self.host.v2_controllers and controller not in given:
                with contextlib.suppress(OSError):
                    _write(f"{directory}/cgroup.subtree_control", f"+{controller}")

    def exists(self) -> bool:
        """True while any hierarchy has the directory."""
        return any(os.path.isdir(directory) for directory in self._directories())

    def destroy(self, timeout_s: float = 2.0) -> None:
        """Remove it and everything below, in all hierarchies; nothing there is fine.

        The kernel lets go of dead members a moment after they are reaped, hence the time.

        Raises:
            OSError: EBUSY when processes are left after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        for directory in self._directories():
            for below in _deepest_first(directory):
                _remove(below, deadline)

    # --- members ---

    def open_unified(self) -> int | None:
        """An fd for `clone3(cgroup_fd=)`, or None on a host without v2; the caller closes it."""
        if self.host.unified is None:
            return None
        return os.open(f"{self.host.unified}/{self.path}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def add(self, pid: int) -> None:
        """Move a process (all its threads) into the cgroup of every hierarchy; 0 = the caller."""
        for directory in self._directories():
            _write(f"{directory}/cgroup.procs", str(pid))

    def join(self, *, is_in_unified: bool) -> None:
        """Move the calling process, which must be single-threaded, into the cgroup: fast.

        `add` makes the kernel wait until no fork is under way anywhere, 5 to 20 ms on a quiet
        machine. It need not wait for a thread that moves itself (v1 `tasks`), nor for a child that
        is born in a cgroup: clone with `open_unified()` and say so here.
        """
        for path in self.join_files(is_in_unified=is_in_unified):
            _write(path, "0")

    def join_files(self, *, is_in_unified: bool) -> list[str]:
        """Where a process writes "0" to move itself."""
        files = []
        for mount_point in self.host.hierarchies():
            directory = f"{mount_point}/{self.path}"
            if mount_point != self.host.unified:
                files.append(f"{directory}/tasks")
            elif not is_in_unified:
                files.append(f"{directory}/cgroup.procs")
        return files

    def pids(self) -> list[int]:
        """Processes in it and below, each once, as the pid namespace of the caller numbers them."""
        found: set[int] = set()
        for below in _deepest_first(self._main_directory()):
            with contextlib.suppress(FileNotFoundError):
                found.update(int(word) for word in _read_text(f"{below}/cgroup.procs").split())
        found.discard(0)  # members outside our pid namespace
        return sorted(found)

    def kill(self, timeout_s: float = 5.0) -> bool:
        """SIGKILL every process in it and below, again until none is left; True when it is empty.

        Zombies count as gone only when their parent reaps them: a supervisor reaps in between.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if not self._kill_whole():
                self._kill_each()
            if not self.pids():
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)

    def kill_nowait(self) -> None:
        """SIGKILL everything once, without waiting."""
        if not self._kill_whole():
            self._kill_each()

    def _kill_whole(self) -> bool:
        """cgroup.kill (Linux 5.14): atomic, forks included."""
        if self.host.unified is None:
            return False
        try:
            _write(f"{self.host.unified}/{self.path}/cgroup.kill", "1")
        except FileNotFoundError:
            return False
        # On a hybrid host somebody may have been added to the v1 side only.
        return self.host.mode is Mode.V2 or not self.pids()

    def _kill_each(self) -> None:
        freezes = "freezer" in self.host.v1
        if freezes:  # so that a fork bomb stands still while we walk it
            with contextlib.suppress(OSError):
                self._write("freezer", "freezer.state", "FROZEN")
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if freezes:
            with contextlib.suppress(OSError):
                self._write("freezer", "freezer.state", "THAWED")

    # --- limits ---

    def apply(self, limits: Limits) -> list[str]:
        """Set the limits; returns the names of those that this kernel lacks and that were left out.

        Raises:
            OSError: the kernel refuses a value (EINVAL, EBUSY for memory below what is used,
                ERANGE...), or has another one in force afterwards; the control file is its file name.
        """
        writes = v2_writes(limits) if self.host.mode is Mode.V2 else v1_writes(limits)
        return apply_writes(writes, self._write, self._read)

    def freeze(self, timeout_s: float = 10.0) -> None:
        """Stop every process; returns when all stand still.

        Raises:
            OSError: ENOSYS without a freezer; EBUSY when some task does not stop (it is thawed again).
        """
        self._set_frozen(is_frozen=True, timeout_s=timeout_s)

    def thaw(self, timeout_s: float = 10.0) -> None:
        """Let them go on."""
        self._set_frozen(is_frozen=False, timeout_s=timeout_s)

    def is_frozen(self) -> bool:
        """Whether it is frozen now."""
        if self._has_v2_freezer():
            return flat_keyed(_read_text(f"{self.directory(UNIFIED)}/cgroup.events")).get("frozen", 0) == 1
        return self._read("freezer", "freezer.state").strip() == "FROZEN"

    def _has_v2_freezer(self) -> bool:
        return self.host.unified is not None and os.path.exists(f"{self.directory(UNIFIED)}/cgroup.freeze")

    def _set_frozen(self, *, is_frozen: bool, timeout_s: float) -> None:
        if self._has_v2_freezer():
            target, words = (UNIFIED, "cgroup.freeze"), ("0", "1")
        elif "freezer" in self.host.v1:
            target, words = ("freezer", "freezer.state"), ("THAWED", "FROZEN")
        else:
            raise OSError(errno.ENOSYS, "no cgroup freezer on this host", self.path)
        deadline = time.monotonic() + timeout_s
        self._write(*target, words[is_frozen])
        while self.is_frozen() != is_frozen:
            if time.monotonic() > deadline:
                self._write(*target, words[0])
                raise OSError(errno.EBUSY, "cgroup does not freeze", self.path)
            time.sleep(_POLL_S)
            if target[0] == "freezer":  # v1 can get stuck half-way when tasks fork; writing again helps
                self._write(*target, words[is_frozen])

    # --- reading ---

    def stats(self) -> Stats:
        """A reading of all controllers; zeros for what the host lacks or after the end."""
        return v2_stats(self._read) if self.host.mode is Mode.V2 else v1_stats(self._read)

    def oom_kill_count(self) -> int:
        """How many processes the kernel killed here (and below) because memory was out."""
        if self.host.mode is Mode.V2:
            return flat_keyed(self._read("memory", "memory.events")).get("oom_kill", 0)
        return flat_keyed(self._read("memory", "memory.oom_control")).get("oom_kill", 0)

    def is_under_oom(self) -> bool:
        """True while tasks wait for memory with the OOM killer disabled (v1)."""
        return flat_keyed(self._read("memory", "memory.oom_control")).get("under_oom", 0) == 1

    def directory(self, controller: str) -> str:
        """Where the cgroup of this controller (or `unified`) is; FileNotFoundError if the host has none."""
        if controller != UNIFIED and self.host.mode is not Mode.V2:
            mount_point = self.host.v1.get(controller)
        else:
            mount_point = self.host.unified
        if mount_point is None:
            raise FileNotFoundError(errno.ENOENT, "no cgroup hierarchy", controller)
        return f"{mount_point}/{self.path}"

    def _main_directory(self) -> str:
        """The hierarchy whose membership counts: a v1 one on hybrid hosts, where v2 is only a help."""
        for controller in ("pids", "memory", "freezer"):
            with contextlib.suppress(FileNotFoundError):
                return self.directory(controller)
        return self._directories()[0]

    def _directories(self) -> list[str]:
        found = [f"{mount_point}/{self.path}" for mount_point in self.host.hierarchies()]
        if not found:
            raise OSError(errno.ENOSYS, "no cgroup hierarchy is mounted", self.path)
        return found

    def _read(self, controller: str, file: str) -> str:
        try:
            return _read_text(f"{self.directory(controller)}/{file}")
        except OSError:
            return ""

    def _write(self, controller: str, file: str, value: str) -> None:
        _write(f"{self.directory(controller)}/{file}", value)


def _checked(path: str) -> str:
    """A relative path of plain words; anything that could leave the hierarchy is refused."""
    bare = path.strip("/")
    words = bare.split("/")
    if any(word in (".", "..") or not _COMPONENT.match(word) or word.startswith("cgroup.") for word in words):
        raise ValueError(f"invalid cgroup path {path!r}")
    return bare


def _inherit_cpuset(directory: str) -> None:
    """v1: a cpuset takes no task before both its lists are set; start with the parent's."""
    parent = os.path.dirname(directory)
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not _read_text(f"{directory}/{file}").strip():
            _write(f"{directory}/{file}", _read_text(f"{parent}/{file}").strip())


def _deepest_first(directory: str) -> Iterator[str]:
    for here, _, _ in os.walk(directory, topdown=False):
        yield here


def _remove(directory: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _read_text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode("ascii", "replace")
    finally:
        os.close(fd)


def _write(path: str, value: str) -> None:
    """One write: the kernel takes each write as a whole. Never creates."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode("ascii"))
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value!r}: {error.strerror}", path) from None
    finally:
        os.close(fd)
