"""The isolation table: every default that a container is confined by, tried from inside by unmodified clients.

The names of the tests are the rows of docs/security.md; row 20 is in tests/root/runtime.
"""

import json
import os
import shutil
import stat

import pytest

from orlop.runtime import defaults
from support import images, isolation, orlopd

pytestmark = pytest.mark.system
CAPABILITIES = "00000000a80425fb"
HARDENED = "00000000800405fb"


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    if shutil.which("gcc") is None or os.uname().machine != "x86_64":
        pytest.skip("needs gcc and an x86-64")
    return isolation.build_probe(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def run(engine, probe):
    """Run the script with flags; every set of flags once."""
    known = {}

    def run(*flags):
        if flags not in known:
            masked = " ".join((*defaults.MASKED_PATHS, *defaults.thermal_paths(os.cpu_count() or 1)))
            words = ("--rm", "-e", f"MASKED={masked}", "-v", f"{probe}:/probe:ro")
            done = engine.docker("run", *words, *flags, "busybox", "sh", "-c", isolation.SCRIPT)
            known[flags] = isolation.parts(done.stdout)
        return known[flags]

    return run


@pytest.fixture(scope="module")
def plain(run):
    return run()


@pytest.fixture(scope="module")
def hardened(run):
    return run("--security-opt", "hardened=true")


def status(found):
    return dict(line.split(":\t") for line in found["status"])


def mounts(found):
    """target -> (options of the mount, type)."""
    rows = [line.split() for line in found["mounts"]]
    return {row[4]: (set(row[5].split(",")), row[row.index("-") + 1]) for row in rows}


def calls(found):
    return isolation.results(found["calls"])


def test_row_1_docker_s_fourteen_capabilities(plain):
    assert {status(plain)[name] for name in ("CapBnd", "CapEff", "CapPrm")} == {CAPABILITIES}


def test_row_2_nothing_is_inheritable_or_ambient(engine, plain):
    words = ("--cap-add", "NET_ADMIN", "--network", "none", "busybox", "sleep", "60")
    container = engine.docker("run", "-d", *words).stdout.strip()
    shown = engine.docker("exec", container, "cat", "/proc/self/status", "/proc/1/status").stdout
    engine.docker("rm", "-f", container)
    sets = [line.split() for line in shown.splitlines() if line.startswith(("CapInh", "CapAmb"))]

    assert len(sets) == 4
    assert {value for _, value in sets} == {"0" * 16}
    assert status(plain)["CapInh"] == status(plain)["CapAmb"] == "0" * 16


def test_row_3_a_user_has_no_effective_capabilities(run):
    found = status(run("-u", "1000"))

    assert found["CapEff"] == found["CapPrm"] == found["CapAmb"] == "0" * 16
    assert found["CapBnd"] == CAPABILITIES


def test_row_4_no_new_privileges_is_an_option(plain, run):
    assert status(plain)["NoNewPrivs"] == "0"
    assert status(run("--security-opt", "no-new-privileges"))["NoNewPrivs"] == "1"


EXPECTED = {
    "unknown": "ENOSYS", "clone3": "ENOSYS", "x32": "ENOSYS", "32-socketcall": "ENOSYS",
    "socket-inet": "OK", "32-getpid": "OK", "ptrace": "ESRCH",
} | dict.fromkeys(
    ("unshare clone-newuser mount setns socket-alg socket-vsock io_uring_setup userfaultfd add_key request_key "
     "keyctl bpf perf_event_open open_by_handle_at kexec_load init_module iopl quotactl reboot personality "
     "32-socket-alg 32-socket-vsock 32-unshare").split(), "EPERM",
)  # fmt: skip


@pytest.mark.parametrize("call", EXPECTED)
def test_rows_5_to_8_and_29_system_calls(plain, call):
    assert status(plain)["Seccomp"] == "2"
    assert calls(plain)[call] == EXPECTED[call]


def test_row_10_every_namespace_is_the_container_s_own(plain):
    names = ["cgroup", "ipc", "mnt", "net", "pid", "uts", "time"]
    names = [name for name in names if os.path.exists(f"/proc/self/ns/{name}")]

    assert len(plain["namespaces"]) == len(names)
    assert not set(plain["namespaces"]) & {os.readlink(f"/proc/self/ns/{name}") for name in names}


def test_row_12_proc_is_a_new_instance_with_flags(plain):
    options, kind = mounts(plain)["/proc"]

    assert kind == "proc"
    assert {"nosuid", "nodev", "noexec"} <= options


def test_row_13_sys_and_cgroups_are_read_only(plain):
    found = mounts(plain)

    for target, (options, kind) in found.items():
        if kind in ("sysfs", "cgroup", "cgroup2"):
            assert {"ro", "nosuid", "nodev", "noexec"} <= options, target
    assert "/sys" in found
    assert plain["cgroup-write"]
    assert all("Read-only file system" in line for line in plain["cgroup-write"])


def test_rows_14_and_15_masked_paths_are_empty(plain):
    assert len(plain["masked"]) >= 3
    for line in plain["masked"]:
        path, count, *device = line.split()
        assert count == "0", path
        assert device in ([], ["1:3"]), path


def test_row_16_settings_of_the_host_are_read_only(plain):
    assert len(plain["read-only"]) >= 3
    assert all("Read-only file system" in line for line in plain["read-only"])


def test_row_17_dev_has_the_default_nodes_only(plain):
    names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    if not os.path.exists("/proc/kcore"):
        names.remove("core")  # a link to nowhere is not made
    assert plain["dev"] == names
    assert mounts(plain)["/dev"][1] == "tmpfs"


def test_row_18_a_node_may_be_made_and_not_opened(plain):
    made, *refused = plain["mknod"]

    assert made == "made"
    assert len(refused) == 3
    assert all("Operation not permitted" in line for line in refused)


def test_row_19_a_tmpfs_is_closed_unless_the_user_opens_it(engine):
    words = ("--tmpfs", "/a", "--tmpfs", "/b:exec,size=1m", "busybox", "cat", "/proc/self/mountinfo")
    found = mounts({"mounts": engine.docker("run", "--rm", *words).stdout.splitlines()})

    assert {"nosuid", "nodev", "noexec"} <= found["/a"][0]
    assert {"nosuid", "nodev"} <= found["/b"][0]
    assert "noexec" not in found["/b"][0]


def test_row_21_mounts_do_not_propagate(plain):
    assert not [line for line in plain["mounts"] if " shared:" in line or " master:" in line]


def test_row_21_a_bind_around_the_engine_s_own_data_is_told(engine):
    words = ("run", "--rm", "--network", "none", "-v")
    for source in (engine.data_root, engine.root):
        told = engine.docker(*words, f"{source}:/all", "busybox", "true").stderr
        assert f"WARNING: {source} contains the engine's data root" in told
    quiet = [
        engine.docker(*words, f"{engine.root}:/all:{word}", "busybox", "ls", "/all") for word in ("ro", "rw")
    ]
    assert ["data root" in done.stderr for done in quiet] == [False, False]
    assert all("data" in done.stdout for done in quiet)


def test_row_24_limits_are_decided_here(plain):
    soft, hard, core = plain["limits"]

    assert (soft, core) == ("1024", "0")
    assert int(hard) <= 524288


def test_row_25_sysctls_of_a_private_network(plain):
    assert plain["sysctls"][0] == "0"
    assert plain["sysctls"][1].split() == ["0", "2147483647"]


@pytest.mark.parametrize(
    "name", ["kernel.core_pattern", "vm.swappiness", "net..x", "kernel.shmmax/../core_pattern"]
)
def test_row_25_sysctls_of_the_host_are_refused(engine, name):
    done = engine.docker("run", "--rm", "--sysctl", f"{name}=1", "busybox", "true", check=False)

    assert done.returncode == 125


def test_row_26_apparmor_fails_closed(engine):
    if os.path.isdir("/sys/kernel/security/apparmor"):
        pytest.skip("this host has AppArmor")
    done = engine.docker("run", "--rm", "--security-opt", "apparmor=mine", "busybox", "true", check=False)

    assert done.returncode == 125
    assert "apparmor: config provided but apparmor not supported" in done.stderr


def test_row_30_the_api_s_socket_is_closed_to_others(engine):
    status = engine.socket.stat()

    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o660


def test_row_31_privileged_has_no_walls_but_those_named(run):
    found = run("--privileged")
    kept = run("--privileged", "--security-opt", "seccomp=builtin")

    assert status(found)["Seccomp"] == "0"
    assert int(status(found)["CapEff"], 16) & ~int(CAPABILITIES, 16)
    assert "rw" in mounts(found)["/sys"][0]
    assert status(kept)["Seccomp"] == "2"
    assert calls(kept)["socket-alg"] == "EPERM"


def test_row_32_a_step_of_a_build_has_the_same_walls(engine, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN echo found=$(grep -E '^(CapEff|Seccomp)' /proc/self/status)=\n"
    )

    shown = " ".join(engine.docker("build", "--no-cache", str(tmp_path)).stdout.split())

    assert f"CapEff: {CAPABILITIES} Seccomp: 2" in shown


def test_descriptors_and_directory_are_the_container_s(plain):
    assert plain["fds"] == ["0", "1", "2"]
    assert plain["cwd"] == ["/"]


def test_hardened_is_narrower(hardened):
    found = status(hardened)

    assert {found[name] for name in ("CapBnd", "CapEff", "CapPrm")} == {HARDENED}
    assert found["NoNewPrivs"] == "1"
    results = calls(hardened)
    assert results["ptrace"] == "EPERM"
    assert results["32-getpid"] == "killed-31"
    assert results["socket-inet"] == "OK"


def test_inspect_shows_what_hardened_comes_to(engine):
    words = ("create", "--security-opt", "hardened=true", "--cap-add", "NET_RAW", "busybox", "true")
    container = engine.docker(*words).stdout.strip()
    (found,) = json.loads(engine.docker("inspect", container).stdout)
    engine.docker("rm", container)

    assert found["HostConfig"]["CapDrop"] == ["CAP_AUDIT_WRITE", "CAP_MKNOD"]
    assert found["HostConfig"]["SecurityOpt"] == ["no-new-privileges", "hardened=true"]


def test_the_engine_s_own_defaults_for_all(tmp_path):
    profile = tmp_path / "profile.json"
    rules = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rules]}))
    flags = ("--default-security=hardened", f"--seccomp-profile={profile}")

    with orlopd.Orlopd(*flags) as engine:
        engine.docker("load", input=images.busybox_archive("busybox:latest"))
        script = "grep -E '^(CapEff|NoNew)' /proc/self/status; mkdir /x"
        done = engine.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
        left = engine.docker(
            "run", "--rm", "--security-opt", "hardened=false", "--security-opt", "seccomp=builtin",
            "busybox", "sh", "-c", script,
        )  # fmt: skip
        info = engine.docker("info", "-f", "{{json .SecurityOptions}}").stdout

    assert HARDENED in done.stdout
    assert "Input/output error" in done.stderr
    assert CAPABILITIES in left.stdout
    assert str(profile) in info
    assert "name=hardened" in info


def test_row_9_a_user_namespace_keeps_every_wall(run):
    found = run("--security-opt", "userns=auto", "--security-opt", "hardened=true")

    inside, outside, _ = found["uidmap"][0].split()
    assert inside == "0"
    assert int(outside) > 65535
    assert status(found)["CapBnd"] == HARDENED
    assert {name: calls(found)[name] for name in ("unknown", "unshare", "socket-alg")} == {
        "unknown": "ENOSYS",
        "unshare": "EPERM",
        "socket-alg": "EPERM",
    }
    assert all(line.split()[1] == "0" for line in found["masked"])
