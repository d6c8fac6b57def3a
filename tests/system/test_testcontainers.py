"""Testcontainers for Python, unmodified: what it does without published ports and without its reaper, which needs one."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("testcontainers")

SCRIPT = """
import json
from pathlib import Path
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core import wait_strategies as waits

told = {}

class NotYet(waits.WaitStrategy):
    def wait_until_ready(self, container):
        assert container.get_wrapped_container().status in ("created", "running")

program = "echo starting; sleep 0.2; echo ready $WHO; touch /tmp/up; echo noise >&2; exec sleep 1000"
container = (
    DockerContainer("busybox:latest", network_mode="none")
    .with_env("WHO", "you")
    .with_command(["sh", "-c", program])
    .with_name("tested")
    .with_volume_mapping(str(Path("shared").absolute()), "/shared", "rw")
    .with_kwargs(mem_limit="64m", user="0:0", healthcheck={"test": ["CMD", "test", "-e", "/tmp/up"], "interval": 100000000})
    .waiting_for(
        waits.CompositeWaitStrategy(
            NotYet(),
            waits.LogMessageWaitStrategy("ready you"),
            waits.HealthcheckWaitStrategy(),
            waits.ContainerStatusWaitStrategy(),
            waits.ExecWaitStrategy(["test", "-e", "/tmp/up"]),
        ).with_startup_timeout(30)
    )
)
with container:
    result = container.exec(["sh", "-c", "echo $WHO; cat /shared/given; echo taken > /shared/taken; exit 3"])
    told["exec"] = [result.exit_code, result.output.decode()]
    told["logs"] = [part.decode() for part in container.get_logs()]
    told["labels"] = sorted(name for name in container.get_wrapped_container().labels if "testcontainers" in name)
    told["taken"] = Path("shared/taken").read_text()
    told["memory"] = container.get_wrapped_container().attrs["HostConfig"]["Memory"]

with DockerImage(path="context", tag="tested:1", clean_up=True) as image:
    with DockerContainer(str(image), network_mode="none").waiting_for(waits.LogMessageWaitStrategy("from the image")) as built:
        told["built"] = built.get_logs()[0].decode()

try:
    DockerContainer("busybox:latest", network_mode="none").with_command("false").waiting_for(
        waits.LogMessageWaitStrategy("never").with_startup_timeout(2)
    ).start()
except Exception as error:
    told["error"] = type(error).__name__

told["left"] = [found.name for found in container.get_docker_client().client.containers.list(all=True) if found.name == "tested"]
print(json.dumps(told))
"""


@pytest.fixture
def told(engine, tmp_path):
    """What the script saw."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "given").write_text("from the host\n")
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(
        'FROM busybox\nCMD ["sh", "-c", "echo from the image; exec sleep 1000"]\n'
    )
    env = engine.client_env({"TESTCONTAINERS_RYUK_DISABLED": "true"})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_container_is_waited_for_used_and_removed(told):
    assert told.pop("labels") == [
        "org.testcontainers", "org.testcontainers.lang", "org.testcontainers.session-id", "org.testcontainers.version",
    ]  # fmt: skip
    assert told.pop("error") in ("TimeoutError", "RuntimeError")
    assert told == {
        "exec": [3, "you\nfrom the host\n"],
        "logs": ["starting\nready you\n", "noise\n"],
        "taken": "taken\n",
        "memory": 64 << 20,
        "built": "from the image\n",
        "left": [],
    }
