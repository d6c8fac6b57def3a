"""`orlop` on a machine where nobody has started an engine: the first command does."""

import shutil
import subprocess
import sys
import textwrap

import pytest

from support.orlopd import SRC

# The default places, hidden under empty file systems; namespaces of mounts and networks of the test's own.
SCRIPT = """
mount -t tmpfs none /run
mkdir -p /var/lib/orlop
mount -t tmpfs none /var/lib/orlop
end() { kill "$(cat /run/orlop/lock)"; while [ -S /run/orlop/orlop.sock ]; do sleep 0.05; done; }
trap end EXIT
"""


@pytest.fixture
def machine(tmp_path):
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")

    def run(script):
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(SRC)}
        text = f'set -e; orlop() {{ "{sys.executable}" -m orlop.cli.main "$@"; }}\n{SCRIPT}\n{textwrap.dedent(script)}'
        command = ["unshare", "--mount", "--net", "--propagation", "slave", "sh", "-c", text]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_first_command_starts_the_engine(machine):
    done = machine("""
        orlop ps
        orlop version --format '{{.Server.Version}}' | grep -q .
    """)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CONTAINER ID ")


def test_commands_at_the_same_time_start_one_engine(machine):
    done = machine("""
        for n in 1 2 3 4; do orlop ps -q & done
        wait %1 %2 %3 %4
        grep -c 'engine is ready' /run/orlop/orlopd.log
    """)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "1\n"


def test_an_engine_that_somebody_named_is_not_started(machine):
    done = machine("""
        orlop ps
        orlop -H unix:///run/other.sock ps && exit 1
        test ! -S /run/other.sock
    """)

    assert done.returncode == 0, done.stderr
    assert "cannot connect" in done.stderr.lower()
