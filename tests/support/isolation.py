"""What a container finds when it tries its walls: one static program and one script, run from inside."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

CALLS = {
    # name: (number on x86-64, arguments)
    "unknown": (9999, ()),
    "unshare": (272, (0x20000,)),
    "clone-newuser": (56, (0x10000000 | 17,)),
    "clone3": (435, (0, 0)),
    "mount": (165, (0, 0, 0, 0, 0)),
    "setns": (308, (-1, 0)),
    "socket-inet": (41, (2, 1, 0)),
    "socket-alg": (41, (38, 5, 0)),
    "socket-vsock": (41, (40, 1, 0)),
    "io_uring_setup": (425, (1, 0)),
    "userfaultfd": (323, (1,)),
    "add_key": (248, (0, 0, 0, 0, 0)),
    "request_key": (249, (0, 0, 0, 0)),
    "keyctl": (250, (0, 0)),
    "bpf": (321, (0, 0, 0)),
    "perf_event_open": (298, (0, 0, -1, -1, 0)),
    "open_by_handle_at": (304, (-1, 0, 0)),
    "kexec_load": (246, (0, 0, 0, 0)),
    "init_module": (175, (0, 0, 0)),
    "iopl": (172, (3,)),
    "quotactl": (179, (0, 0, 0, 0)),
    "reboot": (169, (0, 0, 0, 0)),
    "personality": (135, (0x0400000,)),
    "ptrace": (101, (16, 999999, 0, 0)),
    "x32": (0x40000000 | 39, ()),
}
CALLS_32 = {
    "32-socketcall": (102, (1, 0)),
    "32-socket-alg": (359, (38, 5, 0)),
    "32-socket-vsock": (359, (40, 1, 0)),
    "32-getpid": (20, ()),
    "32-unshare": (310, (0x20000,)),
}
_SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static long call(long n, long a, long b, long c, long d, long e) {
    long r; register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return r;
}
static long call32(int n, int a, int b, int c) {
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
    return (int)r;
}
static void try(const char *name, int is_32, long n, long a, long b, long c, long d, long e) {
    fflush(stdout);
    int pid = fork(), status;
    if (pid == 0) {
        long r = is_32 ? call32(n, a, b, c) : call(n, a, b, c, d, e);
        if (r == 0 && n == 56) _exit(0);
        printf("%%s %%ld\\n", name, r < 0 ? r : 0);
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) printf("%%s killed-%%d\\n", name, WTERMSIG(status));
}
int main(void) {
%s
    return 0;
}
"""
SCRIPT = r"""
part() { echo "== $1"; }
part status; grep -E '^(Cap|Seccomp:|NoNew|Uid)' /proc/self/status
part calls; /probe
part namespaces; for n in cgroup ipc mnt net pid uts time; do readlink /proc/self/ns/$n; done
part mounts; cat /proc/self/mountinfo
part fds; ls /proc/1/fd
part cwd; readlink /proc/1/cwd
part dev; (cd /dev; ls -1)
part cgroup-write; for f in /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
  [ -e $f ] || continue; (echo 1 > $f) 2>&1; done; find /sys/fs/cgroup -name release_agent
part masked; for f in $MASKED; do [ -e $f ] || continue
  if [ -d $f ]; then echo "$f $(ls -A $f | wc -l)"; else echo "$f $(cat $f 2>/dev/null | wc -c) $(stat -c %t:%T $f)"; fi; done
part read-only; for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/sys/kernel/core_pattern; do
  [ -e $f ] && (echo x > $f) 2>&1; done
part mknod; mknod /tmp/disk b 8 0 && echo made; cat /tmp/disk 2>&1; mknod /tmp/mem c 1 1; cat /tmp/mem 2>&1; mknod /tmp/fuse c 10 229; cat /tmp/fuse 2>&1
part limits; ulimit -n; ulimit -Hn; ulimit -c
part sysctls; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range
part uidmap; cat /proc/self/uid_map
part end
"""


def build_probe(directory: Path) -> Path:
    """Compile the program that makes each call in a child of its own."""
    lines = []
    for is_32, calls in ((0, CALLS), (1, CALLS_32)):
        for name, (number, arguments) in calls.items():
            words = ", ".join(str(value) for value in (*arguments, *[0] * (5 - len(arguments))))
            lines.append(f'    try("{name}", {is_32}, {number}, {words});')
    source, program = directory / "probe.c", directory / "probe"
    source.write_text(_SOURCE % "\n".join(lines))
    subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True, capture_output=True)
    return program


def parts(text: str) -> dict[str, list[str]]:
    """The lines of each part of the script's output."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("== "):
            lines = found[line[3:]] = []
        else:
            lines.append(line)
    assert "end" in found, text
    return found


def results(lines: list[str]) -> dict[str, str]:
    """name -> `OK`, the errno's name, or `killed-31`."""
    found = {}
    for line in lines:
        name, result = line.split()
        number = int(result) if result.lstrip("-").isdigit() else None
        found[name] = result if number is None else "OK" if number == 0 else errno.errorcode[-number]
    return found
