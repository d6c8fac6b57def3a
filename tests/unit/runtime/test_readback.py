import errno
import os

import pytest

from orlop.kernel.cgroup import Cgroup, Host
from orlop.runtime import readback
from orlop.runtime.plan import plan_process
from orlop.runtime.spec import ContainerSpec, LogSpec, ProcessSpec, RootSpec


@pytest.fixture
def zombie():
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


def difference(pid):
    spec = ContainerSpec(
        "0" * 64, "/", RootSpec(("/",), None, None), ProcessSpec(("true",)), LogSpec("none", "")
    )
    plan = plan_process(spec.process, is_privileged=False)
    return readback.container_difference(pid, spec, plan, Cgroup("orlop/none", Host({}, None, frozenset())))


def fail(*_):
    raise OSError(errno.EXDEV, "torn down")


def test_what_cannot_be_read_of_a_program_that_ends_is_no_difference(zombie, monkeypatch):
    monkeypatch.setattr(readback, "process_difference", fail)

    assert difference(zombie) == ""


def test_what_cannot_be_read_of_a_program_that_runs_is_one(monkeypatch):
    monkeypatch.setattr(readback, "process_difference", fail)

    assert "cannot be read back" in difference(os.getpid())
