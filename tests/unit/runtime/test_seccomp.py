import errno
import sys
import time
from pathlib import Path

import pytest

from orlop.base.errors import InvalidInput
from orlop.kernel.seccomp import (
    ALLOW,
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    KILL_PROCESS,
    LOG,
    TRAP,
    refuse,
)
from orlop.kernel.syscall_tables import ARM64, I386, X86_64
from orlop.runtime.defaults import CAPABILITIES
from orlop.runtime.seccomp import compile_policy, compile_profile, kernel_version
from orlop.runtime.seccomp_policy import default_policy
from orlop.runtime.seccomp_profile import parse_profile
from orlop.runtime.seccomp_table import ALWAYS

sys.path.insert(0, str(Path(__file__).parents[1] / "kernel"))
from bpf_machine import run

EPERM, ENOSYS = refuse(), refuse(errno.ENOSYS)
NEW = (6, 18)
CONTAINER = frozenset(CAPABILITIES)


def decide(program, name, *args, arch=AUDIT_ARCH_X86_64, numbers=X86_64):
    return run(program, arch, numbers[name], (*args, *[0] * (6 - len(args))))


def default(capabilities=CONTAINER, kernel=NEW, machine="x86_64"):
    return compile_policy(default_policy(capabilities, kernel), machine)


def custom(profile, capabilities=CONTAINER, kernel=NEW, machine="x86_64"):
    return compile_policy(parse_profile(profile, capabilities, machine, kernel), machine)


def test_the_list_has_the_length_of_dockers():
    of_architectures = 8  # in Docker's file these stand in conditional entries
    assert len(ALWAYS) == 361 - len({"socketcall"}) + of_architectures


@pytest.mark.parametrize(
    "name", ["read", "execve", "openat2", "landlock_restrict_self", "chroot", "mknod", "ptrace"]
)
def test_ordinary_calls_are_allowed(name):
    assert decide(default(), name) == ALLOW


@pytest.mark.parametrize(
    "name",
    "unshare setns mount umount2 pivot_root open_by_handle_at bpf perf_event_open userfaultfd io_uring_setup keyctl "
    "add_key request_key kexec_load init_module reboot acct swapon iopl syslog settimeofday sethostname nfsservctl".split(),
)
def test_dangerous_calls_are_refused(name):
    assert decide(default(), name) == EPERM


@pytest.mark.parametrize("number", [467, 469, 9999, X86_64["read"] | 0x40000000, 0xFFFFFFFF])
def test_newer_calls_and_x32_do_not_exist(number):
    assert run(default(), AUDIT_ARCH_X86_64, number) == ENOSYS


@pytest.mark.parametrize(
    ("family", "outcome"),
    [(1, ALLOW), (2, ALLOW), (16, ALLOW), (37, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)],
)
def test_socket_families(family, outcome):
    assert decide(default(), "socket", family, 1) == outcome
    assert decide(default(), "socket", family | 1 << 32, 1) == outcome  # the kernel ignores those bits


@pytest.mark.parametrize(
    ("flags", "outcome"),
    [
        (0x11, ALLOW),
        (0x3D0F00, ALLOW),
        (0x10000000, EPERM),
        (0x20000, EPERM),
        (0x02000011, EPERM),
        (1 << 31, ALLOW),
    ],
)
def test_clone_without_namespaces_only(flags, outcome):
    assert decide(default(), "clone", flags) == outcome


def test_clone3_does_not_exist_without_sys_admin():
    assert decide(default(), "clone3") == ENOSYS
    assert decide(default(CONTAINER | {"SYS_ADMIN"}), "clone3") == ALLOW


@pytest.mark.parametrize(
    ("value", "outcome"), [(0, ALLOW), (8, ALLOW), (0xFFFFFFFF, ALLOW), (0x40000, EPERM)]
)
def test_personality(value, outcome):
    assert decide(default(), "personality", value) == outcome


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "unshare"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYS_MODULE", "finit_module"),
        ("SYS_PTRACE", "kcmp"),
        ("SYS_TIME", "clock_settime"),
        ("SYS_NICE", "mbind"),
        ("SYSLOG", "syslog"),
        ("BPF", "bpf"),
        ("PERFMON", "perf_event_open"),
        ("SYS_BOOT", "reboot"),
    ],
)
def test_a_capability_opens_its_calls(capability, name):
    assert decide(default(), name) == EPERM
    assert decide(default(CONTAINER | {capability}), name) == ALLOW


def test_chroot_goes_with_its_capability():
    assert decide(default(CONTAINER - {"SYS_CHROOT"}), "chroot") == EPERM


def test_ptrace_on_kernels_that_a_tracer_could_fool():
    assert decide(default(kernel=(4, 7)), "ptrace") == EPERM
    assert decide(default(CONTAINER | {"SYS_PTRACE"}, (4, 7)), "ptrace") == ALLOW


def test_i386_section_with_its_own_numbers():
    i386 = {"arch": AUDIT_ARCH_I386, "numbers": I386}

    assert decide(default(), "socketcall", **i386) == ENOSYS
    assert decide(default(), "socket", 38, **i386) == EPERM
    assert decide(default(), "socket", 2, **i386) == ALLOW
    assert decide(default(), "umount", **i386) == EPERM
    assert decide(default(), "chown32", **i386) == ALLOW
    assert run(default(), AUDIT_ARCH_I386, 9999) == ENOSYS


def test_arm64():
    program = default(machine="aarch64")
    arm = {"arch": AUDIT_ARCH_AARCH64, "numbers": ARM64}

    assert decide(program, "openat", **arm) == ALLOW
    assert decide(program, "unshare", **arm) == EPERM
    assert decide(program, "socket", 38, **arm) == EPERM
    assert run(program, AUDIT_ARCH_X86_64, 0) == KILL_PROCESS


def test_other_architectures_are_killed():
    assert run(default(), AUDIT_ARCH_AARCH64, 0) == KILL_PROCESS


def test_an_unknown_machine_is_refused():
    with pytest.raises(InvalidInput, match="not supported on vax"):
        default(machine="vax")


def test_the_default_program_is_small_and_compiled_fast():
    started = time.perf_counter()
    program = default()

    assert len(program) // 8 < 400
    assert time.perf_counter() - started < 0.5  # measured: 2 ms; here only against blunders


def test_compiled_programs_are_remembered():
    assert compile_profile(None, CONTAINER) is compile_profile(None, sorted(CONTAINER))


# --- profiles ---


def entry(*names, action="SCMP_ACT_ALLOW", **more):
    return {"names": list(names), "action": action, **more}


def profile(*entries, **more):
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(entries), **more}


def test_old_form():
    program = custom(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"name": "read", "action": "SCMP_ACT_ALLOW", "args": []}],
        }
    )

    assert decide(program, "read") == ALLOW
    assert decide(program, "read", arch=AUDIT_ARCH_I386, numbers=I386) == ALLOW
    assert run(program, AUDIT_ARCH_X86_64, X86_64["write"]) == ENOSYS  # above all that it names


def test_new_form_with_arch_map_and_errnos():
    program = custom(
        profile(
            entry("read", "write", "no_such_call"),
            entry("mkdir", action="SCMP_ACT_ERRNO", errnoRet=5),
            entry("rmdir", action="SCMP_ACT_TRAP"),
            archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            defaultErrnoRet=13,
        )
    )

    assert decide(program, "write") == ALLOW
    assert decide(program, "mkdir") == refuse(5)
    assert decide(program, "rmdir") == TRAP
    assert decide(program, "open") == refuse(13)
    assert run(program, AUDIT_ARCH_I386, I386["open"]) == refuse(13)


def test_without_architectures_only_the_native_one_runs():
    assert run(custom(profile(entry("read"))), AUDIT_ARCH_I386, I386["read"]) == KILL_PROCESS


def test_an_open_default_invents_no_enosys():
    program = custom({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry("mkdir", action="SCMP_ACT_LOG")]})

    assert run(program, AUDIT_ARCH_X86_64, 9999) == ALLOW
    assert decide(program, "mkdir") == LOG


@pytest.mark.parametrize(
    ("conditions", "applies"),
    [
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}}, False),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "7.0"}}, False),
        ({"excludes": {"minKernel": "6.18"}}, False),
        ({"includes": None, "excludes": {}}, True),
        ({"Includes": {"CAPS": ["CAP_SYS_ADMIN"]}}, False),
    ],
)
def test_conditions(conditions, applies):
    program = custom(profile(entry("read", **conditions), entry("vhangup")))

    assert decide(program, "read") == (ALLOW if applies else EPERM)


def argument(index, op, value, second=0):
    return {"index": index, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{op}"}


def test_arguments_must_all_hold():
    program = custom(profile(entry("mmap", args=[argument(0, "EQ", 1), argument(2, "MASKED_EQ", 6, 4)])))

    assert decide(program, "mmap", 1, 0, 13) == ALLOW
    assert decide(program, "mmap", 1, 0, 6) == EPERM
    assert decide(program, "mmap", 2, 0, 4) == EPERM


def test_conditions_on_one_argument_are_alternatives():
    program = custom(profile(entry("mmap", args=[argument(0, "EQ", 1), argument(0, "EQ", 7)])))

    assert [decide(program, "mmap", n) for n in (1, 7, 8)] == [ALLOW, ALLOW, EPERM]


def test_a_rule_without_arguments_settles_a_call():
    program = custom(
        profile(
            entry("mmap", action="SCMP_ACT_LOG", args=[argument(0, "EQ", 1)]), entry("mmap"), entry("mmap")
        )
    )

    assert decide(program, "mmap", 1) == ALLOW


def test_an_empty_profile_is_unconfined():
    assert compile_profile({}, CONTAINER) is None


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (profile(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "x"}]), "both 'architectures'"),
        (profile({"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}), "both 'name' and 'names'"),
        (profile(entry("read", action="SCMP_ACT_NOTIFY")), "not supported"),
        (profile(entry("read", action="ALLOW")), "unknown"),
        ({"defaultAction": "", "syscalls": [entry("read")]}, "unknown"),
        (profile(entry("read", args=[argument(6, "EQ", 1)])), "'index'"),
        (profile(entry("read", args=[argument(0, "LIKE", 1)])), "operator"),
        (profile(entry("read", args=[argument(0, "EQ", -1)])), "'value'"),
        (profile(entry("read", args=[argument(0, "EQ", 1 << 64)])), "'value'"),
        (profile(entry("read", args=[argument(0, "EQ", 1.5)])), "'value'"),
        (profile(entry("read", includes={"minKernel": "6.18.1"})), "kernel version"),
        (profile(entry("read", includes={"minKernel": "0.0"})), "kernel version"),
        (profile(entry("read", includes=[])), "object"),
        (profile({"names": [1], "action": "SCMP_ACT_ALLOW"}), "strings"),
        ({"defaultAction": 1}, "string"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": {}}, "list"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": ["read"]}, "objects"),
        (profile(*[entry("read")] * 5000), "at most"),
        (profile(entry("read", action="SCMP_ACT_ERRNO", errnoRet=True)), "errnoRet"),
    ],
)
def test_malformed_profiles_say_what_is_wrong(broken, words):
    with pytest.raises(InvalidInput, match="invalid seccomp profile") as caught:
        custom(broken)

    assert words in str(caught.value)


def test_a_profile_beyond_the_kernels_limit_is_refused():
    entries = [
        entry(name, action="SCMP_ACT_LOG", args=[argument(n, "EQ", number) for n in range(6)])
        for name, number in list(X86_64.items())[:300]
    ]

    with pytest.raises(InvalidInput, match="too large"):
        custom(profile(*entries))


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.44-fc", (6, 18)), ("5.4", (5, 4)), ("4.19-rc5", (4, 19)), ("x", (0, 0))]
)
def test_kernel_version(release, version):
    assert kernel_version(release) == version
