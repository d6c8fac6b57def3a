"""The docker client says the same over Orlop as over Debian's dockerd: command lines of `like_dockerd.txt`."""

import os
import threading
from pathlib import Path

import pytest

from support import images
from support.peers import Dockerd, Unavailable
from support.sidebyside import read_table, run_group

TABLE = read_table((Path(__file__).parent / "like_dockerd.txt").read_text())


@pytest.fixture(scope="module")
def peer():
    try:
        with Dockerd() as running:
            running.docker("load", input=images.busybox_archive("busybox:latest"))
            yield running
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("group", TABLE, ids=lambda group: group.name)
def test_says_the_same(engine, peer, tmp_path, group):
    said = {}
    environments = {
        "ours": engine.client_env(),
        "theirs": {"PATH": os.environ["PATH"], "HOME": str(peer.root), "DOCKER_HOST": peer.address},
    }
    threads = [
        threading.Thread(target=_collect, args=(said, name, group, env, tmp_path / name))
        for name, env in environments.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    different = [
        f"line {line.number}: {line.command}\n--- dockerd\n{theirs}\n--- orlopd\n{ours}\n"
        for line, ours, theirs in zip(group.lines, said["ours"], said["theirs"], strict=True)
        if not _is_as_wanted(line, ours, theirs)
    ]
    assert not different, "\n" + "\n".join(different)


def _is_as_wanted(line, ours, theirs):
    if line.wanted is not None:
        return str(ours) == line.wanted
    if line.reason is not None:
        return (ours.code == 0) == (theirs.code == 0)
    return ours == theirs


def _collect(said, name, group, env, cwd):
    cwd.mkdir()
    said[name] = run_group(group, env, str(cwd))
