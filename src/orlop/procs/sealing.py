"""Workers that need nothing but their descriptors give up everything else.

A job that parses an archive of strangers is the likeliest to be taken over by it. What it could reach
then: files below the directories that it was given (Landlock), no socket, no program, no other process,
no mount, no part of the kernel that is not for files (seccomp); no capability when it has no directory
either; a bounded amount of memory. All of it costs well below a millisecond.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Sequence
from functools import cache

from orlop.kernel import capabilities, landlock, seccomp
from orlop.kernel.syscall_tables import ARM64, X86_64

__all__ = ["REFUSED", "prepare", "seal"]

REFUSED = frozenset(
    """
    socket socketpair connect bind listen accept accept4 socketcall
    execve execveat fork vfork clone clone3 ptrace process_vm_readv process_vm_writev process_madvise
    kill tkill pidfd_open pidfd_getfd pidfd_send_signal kcmp
    mount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick
    mount_setattr setns unshare open_by_handle_at name_to_handle_at quotactl quotactl_fd swapon swapoff
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register fanotify_init
    add_key request_key keyctl init_module finit_module delete_module kexec_load kexec_file_load reboot
    iopl ioperm sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex acct syslog
    """.split()
)
_MAX_DATA_BYTES = 4 << 30
_MACHINES = {
    "x86_64": (seccomp.AUDIT_ARCH_X86_64, X86_64),
    "aarch64": (seccomp.AUDIT_ARCH_AARCH64, ARM64),
}


@cache
def prepare() -> bytes | None:
    """Compile the filter, in the zygote; None on a machine whose calls we have no table of."""
    known = _MACHINES.get(os.uname().machine)
    if known is None:
        return None
    arch, numbers = known
    refuse = (seccomp.Rule(seccomp.refuse(errno.EPERM)),)
    rules = {numbers[name]: refuse for name in REFUSED if name in numbers}
    return seccomp.assemble([seccomp.Section(arch, rules)], seccomp.ALLOW)


def seal(fds: Sequence[int]) -> None:
    """Keep these descriptors, what is below those that are directories, and nothing else.

    For good. Needs no-new-privileges. What the host's kernel lacks is left out.
    """
    directories = [fd for fd in fds if stat.S_ISDIR(os.fstat(fd).st_mode)]
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _MAX_DATA_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MAX_DATA_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    landlock.restrict_to(directories)
    if not directories:
        capabilities.apply(capabilities.CapabilitySets(0, 0))
    program = prepare()
    if program is not None:
        seccomp.load(program)
