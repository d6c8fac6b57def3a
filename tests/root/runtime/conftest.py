"""A rootfs of busybox and a runtime around it: each test has its own zygote and directories."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# The contract suite stands beside the unit tests of the package.
sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "runtime"))

from runtime_harness import Harness


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory):
    busybox = shutil.which("busybox")
    if busybox is None or os.geteuid() != 0:
        pytest.skip("needs root and busybox-static")
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "etc", "tmp", "root", "home/user", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    os.chown(root / "home/user", 1000, 1000)
    shutil.copy(busybox, root / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
    return root


@pytest.fixture
def harness(tmp_path, rootfs):
    return Harness(tmp_path, rootfs)


@pytest.fixture
def containers(harness):
    """Run an async scenario: `containers(lambda h: ...)` with the harness open."""

    def run(scenario):
        async def whole():
            await harness.open()
            try:
                return await scenario(harness)
            finally:
                await harness.close()

        return asyncio.run(whole())

    return run
