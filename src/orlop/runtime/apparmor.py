"""AppArmor: our default profile, whether the host has it, and how a process takes one on.

The kernel changes the profile at the next execve, after a write to `attr/apparmor/exec`. That file is
opened through a procfs instance of our own, which nothing of a container or a volume can stand in
for (CVE-2019-16884), and which is checked to be one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re

from orlop.kernel import mount

__all__ = ["DEFAULT_PROFILE", "AppArmorHost", "apply_on_exec", "profile_text"]

DEFAULT_PROFILE = "orlop-default"
_PARSER_DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin")
_LISTED = re.compile(r"(?P<name>.+) \((?:enforce|complain|kill|unconfined|prompt)\)\Z")
_MAX_LIST = 8 << 20

_RULES = """
  network,
  deny network alg,
  capability,
  file,
  umount,
  deny mount,
  # as a container's first process its parent is the engine's
  signal (receive) peer=unconfined,
  signal (send, receive) peer={name},
  ptrace (trace, read, tracedby, readby) peer={name},
  # of /proc only what belongs to processes, and the settings of namespaces, may be written
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}}/** w,
  deny @{{PROC}}/sys/[^kn]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^sm][^he][^ms]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/kcore rwklx,
  deny @{{PROC}}/kmem rwklx,
  deny @{{PROC}}/mem rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
"""


def profile_text(name: str = DEFAULT_PROFILE) -> str:
    """The default profile in AppArmor's language; it includes nothing of the host's /etc/apparmor.d."""
    rules = _RULES.format(name=name)
    return f"@{{PROC}}=/proc/\n\nprofile {name} flags=(attach_disconnected,mediate_deleted) {{{rules}}}\n"


class AppArmorHost:
    """What a host's kernel says; `root` is `/`, but for tests."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    def is_enabled(self) -> bool:
        """Whether the module is on and its file system is there."""
        enabled = self._read("sys/module/apparmor/parameters/enabled", 16)
        return enabled.startswith("Y") and os.path.isdir(self._path("sys/kernel/security/apparmor"))

    def profiles(self) -> frozenset[str]:
        """The loaded profiles."""
        text = self._read("sys/kernel/security/apparmor/profiles", _MAX_LIST)
        found = (_LISTED.match(line) for line in text.splitlines())
        return frozenset(match["name"] for match in found if match)

    def ensure_default(self) -> str:
        """Load `orlop-default` anew; returns its name, or "" on a host without AppArmor.

        Raises:
            OSError: AppArmor is on but the profile cannot be loaded. Nobody is to run without it then.
        """
        if not self.is_enabled():
            return ""
        code = self._run_parser(profile_text())
        # One that an earlier engine loaded is as good: hosts in a container may not load any.
        if code and DEFAULT_PROFILE not in self.profiles():
            raise OSError(errno.EPERM, f"apparmor_parser could not load {DEFAULT_PROFILE}: exit code {code}")
        return DEFAULT_PROFILE

    def _run_parser(self, text: str) -> int:
        """Load a profile; 0 or an exit code. The parser is executed as it is, no shell looks at anything."""
        parser = self._find_parser()
        if not parser:
            return 127
        source = os.memfd_create("profile", os.MFD_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(source, text.encode("ascii"))
            os.lseek(source, 0, os.SEEK_SET)
            actions = [(os.POSIX_SPAWN_DUP2, source, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
            words = [parser, "--replace", "--skip-cache"]
            child = os.posix_spawn(parser, words, {"PATH": "/usr/sbin:/usr/bin"}, file_actions=actions)
        finally:
            os.close(source)
            os.close(null)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _find_parser(self) -> str:
        paths = (self._path(f"{directory}/apparmor_parser") for directory in _PARSER_DIRECTORIES)
        return next((path for path in paths if os.access(path, os.X_OK)), "")

    def _path(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))

    def _read(self, path: str, limit: int) -> str:
        try:
            with open(self._path(path), encoding="utf-8", errors="replace") as file:
                return file.read(limit)
        except OSError:
            return ""


def apply_on_exec(profile: str, proc_fd: int | None = None) -> None:
    """Let the next execve of this process change to `profile`.

    To be called before no-new-privileges, which forbids it.

    Args:
        profile: its name; it must be loaded.
        proc_fd: a procfs of our own; None makes one of the present pid namespace.

    Raises:
        OSError: the profile is not loaded, or the kernel has no AppArmor; the text is runc's.
    """
    with contextlib.ExitStack() as stack:
        proc = _new_proc() if proc_fd is None else proc_fd
        if proc_fd is None:
            stack.callback(os.close, proc)
        try:
            fd = _open_attribute(proc)
            stack.callback(os.close, fd)
            os.write(fd, f"exec {profile}".encode())
        except OSError as error:
            text = f"unable to apply apparmor profile: apparmor failed to apply profile {profile}"
            raise OSError(error.errno or errno.EINVAL, f"{text}: {error.strerror}") from error


def _new_proc() -> int:
    safe = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
    return mount.new_filesystem("proc", {"source": "proc"}, safe)


def _open_attribute(proc: int) -> int:
    """AppArmor's own file, or on older kernels the one that all security modules share."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open("thread-self/attr/apparmor/exec", flags, dir_fd=proc)
    except FileNotFoundError:
        return os.open("thread-self/attr/exec", flags, dir_fd=proc)
