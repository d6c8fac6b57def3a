"""Docker's default seccomp policy as data: what every container may call, and what a capability adds.

The names are those of Docker's profile (its version of mid 2026), ordered by what the calls are for.
A name that an architecture does not have is passed over there. Not listed, so refused: kernel modules,
keyrings, io_uring, userfaultfd, kexec, namespaces and mounts without the capability for them.
"""

from __future__ import annotations

__all__ = [
    "AF_ALG",
    "AF_VSOCK",
    "ALWAYS",
    "BY_CAPABILITY",
    "INT_ARGUMENTS",
    "NAMESPACE_FLAGS",
    "PERSONALITIES",
    "SINCE_4_8",
]

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
    faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
    futimesat getcwd getdents getdents64 ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64
    mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv
    preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename renameat renameat2
    rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat sync
    sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64
    utimes vmsplice write writev listmount statmount
"""
_ATTRIBUTES = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat
    llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""
_WATCHING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4
"""
_ASYNCHRONOUS = """
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
"""
_MEMORY = """
    brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
    mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
    pkey_mprotect remap_file_pages
"""
_PROCESSES = """
    capget capset execve execveat exit exit_group fork getcpu getegid getegid32 geteuid geteuid32 getgid
    getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid getresgid32
    getresuid getresuid32 getrlimit getrusage getsid get_thread_area gettid getuid getuid32 ioprio_get
    ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open
    pidfd_send_signal prctl prlimit64 process_mrelease rseq sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32
    setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit setsid set_thread_area set_tid_address setuid setuid32 sysinfo tgkill tkill
    ugetrlimit uname uretprobe vfork wait4 waitid waitpid riscv_hwprobe
"""
_SIGNALS = """
    restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn
"""
_SHARING = """
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list ipc mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 set_robust_list shmat
    shmctl shmdt shmget
"""
_TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
"""
_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
"""
_RANDOM = "getrandom"
_OF_ARCHITECTURES = """
    arch_prctl modify_ldt arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush
    set_tls
"""

ALWAYS = frozenset(
    " ".join(
        (
            *(_FILES, _ATTRIBUTES, _WATCHING, _ASYNCHRONOUS, _MEMORY, _PROCESSES, _SIGNALS, _SHARING),
            *(_TIME, _SOCKETS, _RANDOM, _OF_ARCHITECTURES),
        )
    ).split()
)
"""Allowed to everybody. Docker's list has `socketcall` too: see `runtime.seccomp`."""

SINCE_4_8 = ("process_vm_readv", "process_vm_writev", "ptrace")
"""Safe since seccomp looks at calls again after a tracer changed them (Linux 4.8)."""

BY_CAPABILITY: dict[str, tuple[str, ...]] = {
    "DAC_READ_SEARCH": ("open_by_handle_at",),
    "SYS_ADMIN": tuple(
        """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
        quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
        """.split()
    ),
    "SYS_BOOT": ("reboot",),
    "SYS_CHROOT": ("chroot",),
    "SYS_MODULE": ("delete_module", "init_module", "finit_module"),
    "SYS_PACCT": ("acct",),
    "SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise", *SINCE_4_8),
    "SYS_RAWIO": ("iopl", "ioperm"),
    "SYS_TIME": ("settimeofday", "stime", "clock_settime", "clock_settime64"),
    "SYS_TTY_CONFIG": ("vhangup",),
    "SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "SYSLOG": ("syslog",),
    "BPF": ("bpf",),
    "PERFMON": ("perf_event_open",),
}

PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, PER_LINUX32, both with UNAME26, and the query."""

NAMESPACE_FLAGS = 0x7E020000
"""The CLONE_NEW* bits that `clone` may not carry without SYS_ADMIN."""

AF_ALG, AF_VSOCK = 38, 40  # reach kernel code that namespaces do not confine

INT_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "socket": (0, 1, 2),
    "socketpair": (0, 1, 2),
    "personality": (0,),
    "ioctl": (0, 1),
    "fcntl": (0, 1),
    "fcntl64": (0, 1),
    "prctl": (0,),
    "kill": (0, 1),
    "setsockopt": (0, 1, 2),
    "getsockopt": (0, 1, 2),
}
"""Arguments of which the kernel takes 32 bits only; comparing 64 would let set high bits slip by."""
