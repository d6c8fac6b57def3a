"""Limits that a container has without asking, seen by unmodified clients."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.system


def pids_max():
    """What the kernel must say inside: 4096, or a quarter of all ids where there are few."""
    return min(4096, int(Path("/proc/sys/kernel/pid_max").read_text()) // 4)


def limit_of(engine, *flags):
    """`pids.max` of a running container, and what inspect says of it."""
    container = engine.docker("run", "-d", *flags, "busybox", "sleep", "60").stdout.strip()
    return read_limit(container), inspected(engine, container)


def read_limit(container):
    tops = [top for top in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if top.is_dir()]
    (found,) = {path for path in tops[0].rglob("pids.max") if container in str(path)}
    return found.read_text().strip()


def inspected(engine, container):
    return json.loads(engine.docker("inspect", container).stdout)[0]["HostConfig"]["PidsLimit"]


@pytest.mark.parametrize(
    ("flags", "limit", "shown"),
    [
        ((), str(pids_max()), None),
        (("--privileged",), str(pids_max()), None),
        (("--pids-limit", "9"), "9", 9),
        (("--pids-limit", "-1"), "max", -1),
    ],
)
def test_a_container_has_a_pids_limit_unless_it_asks_for_none(engine, flags, limit, shown):
    assert limit_of(engine, "--network", "none", *flags) == (limit, shown)


def test_a_pids_limit_is_lifted_while_it_runs(engine):
    container = engine.docker("run", "-d", "--network", "none", "busybox", "sleep", "60").stdout.strip()

    engine.docker("update", "--pids-limit", "-1", container)

    assert (read_limit(container), inspected(engine, container)) == ("max", -1)


def test_a_step_of_a_build_has_a_pids_limit(engine, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN echo limit=$(cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null)=\n"
    )

    shown = engine.docker("build", "--no-cache", str(tmp_path)).stdout

    assert f"limit={pids_max()}=" in shown


def test_no_signal_is_ignored_in_a_container(engine):
    words = ("run", "--rm", "--network", "none", "busybox", "grep", "SigIgn", "/proc/self/status")

    assert int(engine.docker(*words).stdout.split()[1], 16) == 0
