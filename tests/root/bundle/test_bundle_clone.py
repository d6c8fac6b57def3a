"""A child that others may see in its pid namespace is out of their reach from its first moment."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

SCRIPT = """
import ctypes, os
from orlop.bundle.launch import clone_child

dumpable = lambda: ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
assert dumpable() == 1
joins = (("/proc/self/ns/uts", 0x04000000),) if {joins} else ()
pid, pidfd = clone_child(lambda: os._exit(dumpable()), 0, joins)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("joins", [False, True])
def test_a_child_is_born_beyond_the_reach_of_ptrace(joins):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(joins=joins)],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
