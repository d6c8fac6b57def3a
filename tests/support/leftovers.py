"""What an engine left on the machine: processes, mounts, cgroups that carry the name of its root.

Everything a test engine makes carries its root: its processes as an argument or in the environment,
its mounts as a source or target, its cgroups because it is started with a parent of its own. So two
test runs on one machine do not see each other, and a run that was killed can be swept by the next.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

PREFIX = "orlop-test-"
_CGROUPS = Path("/sys/fs/cgroup")
_OWNER = "owner"


def new_root() -> Path:
    """A directory with a short name (sockets live in it) that says whose it is."""
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    root.chmod(0o711)
    (root / _OWNER).write_text(f"{os.getpid()} {_start_ticks(os.getpid())}")
    return root


def cgroup_parent(root: Path) -> str:
    """The parent of the cgroups of the engine of `root`."""
    return f"/orlop/{root.name}"


def find(root: Path) -> list[str]:
    """Everything that still carries the name of `root`; ourselves excepted."""
    return (
        [f"process {pid}: {what}" for pid, what in _processes(root).items()]
        + [f"mount in the namespace of {pid}: {line}" for pid, line in _mounts(root)]
        + [f"cgroup {path}" for path in _cgroups(root)]
    )


def wait_gone(root: Path, timeout_s: float = 5.0) -> list[str]:
    """What is left when nothing more goes away by itself within the time."""
    deadline = time.monotonic() + timeout_s
    while (left := find(root)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def sweep(root: Path) -> None:
    """Kill and remove everything of `root`, and `root`."""
    for _ in range(3):
        for pid in _processes(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not _processes(root):
            break
        time.sleep(0.1)
    parents = (os.path.realpath(top) for top in _parents(root))
    for path in sorted({*_cgroups(root), *parents}, key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    shutil.rmtree(root, ignore_errors=True)


def sweep_abandoned() -> None:
    """Remove what test runs left that were killed."""
    for root in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        with contextlib.suppress(OSError, ValueError):
            pid, ticks = (root / _OWNER).read_text().split()
            if _start_ticks(int(pid)) != ticks:
                sweep(root)


def _start_ticks(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _processes(root: Path) -> dict[int, str]:
    name, found = os.fsencode(root.name), {}
    for pid in _pids():
        for source in ("cmdline", "environ", "cgroup"):
            with contextlib.suppress(OSError):
                data = Path(f"/proc/{pid}/{source}").read_bytes()
                if name in data and not _is_zombie(pid):
                    found[pid] = _command(pid)
                    break
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:200]


def _mounts(root: Path) -> list[tuple[int, str]]:
    """Mounts (network namespaces held by a file among them) in every mount namespace of the machine."""
    found, seen = [], set()
    for pid in (os.getpid(), *_pids()):
        with contextlib.suppress(OSError):
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace not in seen:
                seen.add(namespace)
                text = Path(f"/proc/{pid}/mountinfo").read_text(errors="replace")
                found += [(pid, line) for line in text.splitlines() if root.name in line]
    return found


def _cgroups(root: Path) -> list[str]:
    return [
        path
        for top in dict.fromkeys(os.path.realpath(top) for top in _parents(root))
        for path, _, _ in os.walk(top)
        if path != top or _has_processes(top)
    ]


def _parents(root: Path) -> list[Path]:
    """The cgroups that were named to the engine; it leaves them, as dockerd leaves its parents."""
    return [*_CGROUPS.glob(f"orlop/{root.name}"), *_CGROUPS.glob(f"*/orlop/{root.name}")]


def _has_processes(cgroup: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(Path(cgroup, "cgroup.procs").read_text().strip())
    return False
