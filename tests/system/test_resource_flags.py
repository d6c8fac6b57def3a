"""Resource flags of unmodified clients, as the kernel has them in force afterwards."""

import json
import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

TOP = Path("/sys/fs/cgroup")
IS_V1 = (TOP / "memory").is_dir()
v1_only = pytest.mark.skipif(not IS_V1, reason="control files of cgroup v1")
MIB = 1 << 20


def run(engine, *flags, command=("sleep", "300")):
    return engine.docker("run", "-d", "--network", "none", *flags, "busybox", *command).stdout.strip()


def control(container, controller, file):
    """The content of a control file of a running container."""
    top = TOP / controller if IS_V1 else TOP
    for path, folders, _ in os.walk(top):
        if container in folders:
            return (Path(path) / container / file).read_text().strip()
    raise AssertionError(f"no cgroup of {container} below {top}")


def host_config(engine, container):
    return json.loads(engine.docker("inspect", container).stdout)[0]["HostConfig"]


@v1_only
def test_flags_of_run_are_in_force(engine):
    flags = (
        *("--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m"),
        *("--memory-swappiness", "7", "--cpu-shares", "512", "--cpus", "0.5"),
        *("--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "33"),
    )
    container = run(engine, *flags)

    assert {file: control(container, *file) for file in (
        ("memory", "memory.limit_in_bytes"),
        ("memory", "memory.memsw.limit_in_bytes"),
        ("memory", "memory.soft_limit_in_bytes"),
        ("memory", "memory.swappiness"),
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
        ("cpuset", "cpuset.cpus"),
        ("pids", "pids.max"),
    )} == {
        ("memory", "memory.limit_in_bytes"): str(64 * MIB),
        ("memory", "memory.memsw.limit_in_bytes"): str(96 * MIB),
        ("memory", "memory.soft_limit_in_bytes"): str(32 * MIB),
        ("memory", "memory.swappiness"): "7",
        ("cpu", "cpu.shares"): "512",
        ("cpu", "cpu.cfs_quota_us"): "50000",
        ("cpuset", "cpuset.cpus"): "0",
        ("pids", "pids.max"): "33",
    }  # fmt: skip


@v1_only
def test_update_is_in_force_at_once_and_after_the_next_start_and_the_next_engine(fresh_engine):
    engine = fresh_engine
    container = run(engine, "--memory", "64m", "--cpu-shares", "512")

    engine.docker(
        "update",
        "--memory",
        "96m",
        "--memory-swap",
        "-1",
        "--cpu-shares",
        "256",
        "--cpuset-cpus",
        "0",
        container,
    )

    def state():
        return (
            control(container, "memory", "memory.limit_in_bytes"),
            control(container, "cpu", "cpu.shares"),
            control(container, "cpuset", "cpuset.cpus"),
        )

    assert state() == (str(96 * MIB), "256", "0")
    engine.restart()
    assert state() == (str(96 * MIB), "256", "0")
    engine.docker("restart", "-t", "0", container)
    assert state() == (str(96 * MIB), "256", "0")
    kept = host_config(engine, container)
    assert (kept["Memory"], kept["MemorySwap"], kept["CpuShares"]) == (96 * MIB, -1, 256)


def test_an_update_that_is_refused_changes_nothing(engine):
    container = run(engine, "--memory", "64m")

    refused = engine.docker("update", "--memory", "512m", container, check=False)

    assert refused.returncode == 1
    assert "Memory limit should be smaller than already set memoryswap limit" in refused.stderr
    assert host_config(engine, container)["Memory"] == 64 * MIB


def test_cpus_and_quota_do_not_mix(engine):
    container = run(engine, "--cpus", "0.5")

    refused = engine.docker("update", "--cpu-quota", "20000", container, check=False)

    assert "CPU Quota cannot be updated as NanoCPUs has already been set" in refused.stderr


def test_a_stopped_container_is_updated_for_its_next_start(engine):
    container = engine.docker("create", "--network", "none", "busybox", "sleep", "300").stdout.strip()

    engine.docker("update", "--pids-limit", "21", container)
    engine.docker("start", container)

    assert control(container, "pids", "pids.max") == "21"


@v1_only
def test_limits_that_the_kernel_lacks_are_said_and_left_out(engine):
    if list(TOP.glob("blkio/blkio*weight")):
        pytest.skip("this kernel has I/O weights")

    done = engine.docker("create", "--network", "none", "--blkio-weight", "300", "busybox", "true")

    assert "Your kernel does not support Block I/O weight" in done.stderr
    assert host_config(engine, done.stdout.strip())["BlkioWeight"] == 0


@v1_only
def test_rates_of_block_devices(engine):
    device = next((Path("/dev") / name for name in sorted(os.listdir("/sys/block"))), None)
    if device is None or not device.is_block_device():
        pytest.skip("no block device")

    container = run(engine, "--device-read-bps", f"{device}:1mb", "--device-write-iops", f"{device}:50")

    number = os.stat(device).st_rdev
    name = f"{os.major(number)}:{os.minor(number)}"
    assert control(container, "blkio", "blkio.throttle.read_bps_device") == f"{name} {MIB}"
    assert control(container, "blkio", "blkio.throttle.write_iops_device") == f"{name} 50"


def test_a_rate_of_no_device_is_told(engine):
    done = engine.docker(
        *("run", "--network", "none", "--device-read-bps", "/dev/nope:1mb", "busybox", "true"), check=False
    )

    assert done.returncode == 127  # docker run takes this text for a missing program
    assert "stat /dev/nope: no such file or directory" in done.stderr


def test_memory_that_runs_out_kills_the_container_alone(engine):
    bystander = run(engine)
    container = run(
        engine,
        "--memory",
        "16m",
        "--memory-swap",
        "16m",
        command=("sh", "-c", "x=a; while :; do x=$x$x; done"),
    )

    code = engine.docker("wait", container).stdout.strip()

    state = json.loads(engine.docker("inspect", container).stdout)[0]["State"]
    assert (code, state["OOMKilled"]) == ("137", True)
    assert json.loads(engine.docker("inspect", bystander).stdout)[0]["State"]["Running"]


def test_a_fork_bomb_stays_within_its_limit(engine):
    container = run(engine, "--pids-limit", "20", command=("sh", "-c", "f() { f | f & }; f; sleep 300"))

    most = 0
    for _ in range(20):
        most = max(most, int(control(container, "pids", "pids.current")))
        time.sleep(0.02)

    assert 1 <= most <= 20
    engine.docker("rm", "-f", container)


def test_limits_of_processes_are_the_documented_ones(engine):
    shown = engine.docker("run", "--rm", "--network", "none", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Sc")
    asked = engine.docker(
        *("run", "--rm", "--network", "none", "--ulimit", "nofile=77:99", "busybox"),
        *("sh", "-c", "ulimit -Sn; ulimit -Hn"),
    )

    assert shown.stdout.split() == ["1024", "0"]
    assert asked.stdout.split() == ["77", "99"]


def test_devices_by_path_target_and_rights(engine):
    done = engine.docker(
        *("run", "--rm", "--network", "none", "--device", "/dev/null:/dev/mine:r", "busybox"),
        *("sh", "-c", "ls -l /dev/mine; cat /dev/mine && echo readable"),
    )
    rule = engine.docker(
        *("run", "--rm", "--network", "none", "--device-cgroup-rule", "c 10:200 rwm", "busybox"),
        *("sh", "-c", "mknod /dev/t c 10 200 && (: < /dev/t) 2>&1; mknod /dev/l c 10 237; (: < /dev/l) 2>&1"),
        check=False,
    )

    assert "1,   3" in done.stdout
    assert "readable" in done.stdout
    assert "/dev/t: Operation not permitted" not in rule.stdout
    assert "/dev/l: Operation not permitted" in rule.stdout


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--gpus", "all"), 'could not select device driver "" with capabilities: [[gpu]]'),
        (("--device", "v.com/gpu=x"), "CDI device injection failed: unresolvable CDI devices v.com/gpu=x"),
        (("--device", "/dev/nope"), 'while adding custom device "/dev/nope": no such file or directory'),
        (("--storage-opt", "size=1G"), "prjquota"),
        (("--storage-opt", "what=1G"), "Storage opt what not supported"),
        (("--cpuset-cpus", "9999"), "out range, maximum is 8192"),
    ],
)
def test_what_cannot_be_had_is_refused(engine, flags, text):
    done = engine.docker("run", "--rm", "--network", "none", *flags, "busybox", "true", check=False)

    assert done.returncode in (125, 127), done.stderr
    assert text in done.stderr


def test_a_cdi_device_is_injected(fresh_engine, tmp_path):
    engine = fresh_engine
    (tmp_path / "data").write_text("from the host")
    edits = {
        "env": ["CDI=yes"],
        "deviceNodes": [{"path": "/dev/mine", "hostPath": "/dev/null"}],
        "mounts": [{"hostPath": str(tmp_path / "data"), "containerPath": "/opt/data", "options": ["ro"]}],
    }
    document = {
        "cdiVersion": "0.8.0",
        "kind": "vendor.com/thing",
        "devices": [{"name": "one", "containerEdits": edits}],
    }
    directory = tmp_path / "cdi"
    directory.mkdir()
    (directory / "vendor.json").write_text(json.dumps(document))
    engine.flags += ["--cdi-spec-dir", str(directory)]
    engine.restart()

    done = engine.docker(
        *("run", "--rm", "--network", "none", "--device", "vendor.com/thing=one", "busybox"),
        *(
            "sh",
            "-c",
            "echo $CDI; cat /opt/data; echo; test -c /dev/mine && echo device; touch /opt/data 2>&1",
        ),
        check=False,
    )

    assert done.stdout.splitlines()[:3] == ["yes", "from the host", "device"]
    assert "Read-only" in done.stdout
    info = json.loads(engine.docker("info", "--format", "{{json .}}").stdout)
    assert info["CDISpecDirs"] == [str(directory)]
    assert {"Source": "cdi", "ID": "vendor.com/thing=one"} in engine.api().api.info()["DiscoveredDevices"]


def test_stats_of_running_and_stopped_containers(engine):
    running = run(engine, "--memory", "64m", command=("sh", "-c", "while :; do :; done"))
    stopped = engine.docker("create", "--network", "none", "busybox", "true").stdout.strip()

    shown = engine.docker(
        "stats", "--no-stream", "--all", "--format", "{{.ID}} {{.MemUsage}} {{.PIDs}}"
    ).stdout
    api = engine.api().api

    rows = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in shown.splitlines()}
    assert rows[running[:12]].endswith("/ 64MiB 1")
    assert rows[stopped[:12]] == "0B / 0B 0"
    once = api.stats(running, stream=False)
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] > once["precpu_stats"]["cpu_usage"]["total_usage"]
    assert once["memory_stats"]["limit"] == 64 * MIB
    at_once = api.stats(running, stream=False, one_shot=True)
    assert at_once["preread"].startswith("0001-01-01")
    empty = api.stats(stopped, stream=False)
    assert (empty["pids_stats"], empty["memory_stats"]) == ({}, {})


def test_a_history_of_what_was_used(fresh_engine):
    engine = fresh_engine
    engine.flags += ["--stats-interval", "1"]
    engine.restart()
    run(engine, "--name", "busy", command=("sh", "-c", "while :; do :; done"))

    deadline = time.monotonic() + 30
    while len(lines := engine.orlop("stats", "--history", "busy").stdout.splitlines()) < 3:
        assert time.monotonic() < deadline, lines
        time.sleep(0.2)

    assert lines[0].split()[:2] == ["NAME", "TIME"]
    assert lines[1].startswith("busy")


def test_sizes_of_containers(engine):
    container = run(engine, command=("sh", "-c", "dd if=/dev/zero of=/big bs=1024 count=512; sleep 300"))
    engine.docker("exec", container, "sh", "-c", "while ! test -s /big; do :; done; sync")

    listed = json.loads(engine.docker("ps", "-s", "--format", "{{json .}}").stdout)["Size"]
    seen = json.loads(engine.docker("inspect", "-s", container).stdout)[0]
    changed = engine.docker("diff", container).stdout.split("\n")

    assert listed.startswith("524kB (virtual ")
    assert seen["SizeRw"] == 512 * 1024
    assert seen["SizeRootFs"] > seen["SizeRw"]
    assert "A /big" in changed


def test_info_tells_the_truth_about_this_kernel(engine):
    info = json.loads(engine.docker("info", "--format", "{{json .}}").stdout)

    assert info["CgroupVersion"] == ("1" if IS_V1 else "2")
    assert info["OomKillDisable"] is IS_V1
    if IS_V1:
        has_swap = (TOP / "memory" / "memory.memsw.limit_in_bytes").exists()
        assert info["SwapLimit"] is has_swap
        assert ("WARNING: No swap limit support" in (info["Warnings"] or [])) is not has_swap
