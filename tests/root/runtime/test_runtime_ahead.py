"""What the spare supervisor makes before a spec is known: used once, by one container, and never left behind."""

import asyncio
import contextlib
import os
import signal

import pytest

pytestmark = pytest.mark.root

KINDS = ("net", "ipc", "uts", "mnt", "pid")
SHOW = (
    "for kind in " + " ".join(KINDS) + "; do readlink /proc/self/ns/$kind; done; cat /sys/class/net/lo/flags"
)


def children_of(pid):
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            continue
    return found


def namespaces_held_by(pid):
    links = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return {link for link in links if link.partition(":")[0] in KINDS}


def namespaces_held_quietly(pid):
    try:
        return namespaces_held_by(pid)
    except OSError:
        return set()


async def spare_of(zygote):
    """The pid of the spare once it has everything."""
    for _ in range(200):
        for pid in children_of(zygote.pid):
            if len(namespaces_held_quietly(pid)) == 3:
                return pid
        await asyncio.sleep(0.02)
    raise AssertionError("no spare has made anything ahead")


def test_a_container_takes_the_namespaces_made_ahead_and_its_supervisor_keeps_none(containers):
    async def scenario(harness):
        spare = await spare_of(harness.zygote)
        made = namespaces_held_by(spare)
        task, stream = await harness.start("sleep", "60")
        with stream:
            own = {os.readlink(f"/proc/{task.pid}/ns/{kind}") for kind in KINDS}
            kept = namespaces_held_by(spare)
            await task.signal(signal.SIGKILL)
            await task.wait()
        return made, own, kept

    made, own, kept = containers(scenario)
    assert made <= own
    assert kept == set()


def test_containers_started_at_once_share_nothing(containers):
    async def scenario(harness):
        await spare_of(harness.zygote)
        started = await asyncio.gather(*(harness.start("sleep", "60") for _ in range(4)))
        seen = [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS]
        flags = []
        for task, _ in started:  # all of them live, or a number could be used again
            seen += [os.readlink(f"/proc/{task.pid}/ns/{kind}") for kind in KINDS]
            flags.append((await harness.exec(task, "cat", "/sys/class/net/lo/flags")).text)
        for task, stream in started:
            stream.close()
            await task.signal(signal.SIGKILL)
            await task.wait()
        return seen, flags

    seen, flags = containers(scenario)
    assert len(seen) == len(set(seen)) == 5 * len(KINDS)
    assert all(int(text, 16) & 1 for text in flags), "the loopback is up"


def test_a_container_in_the_hosts_namespaces_has_no_use_for_what_was_made_ahead(containers):
    async def scenario(harness):
        spare = await spare_of(harness.zygote)
        made = namespaces_held_by(spare)
        return made, await harness.shell(SHOW, network="host", ipc="host", uts="host", hostname="")

    made, output = containers(scenario)
    links = output.text.split()
    assert links[:3] == [os.readlink(f"/proc/self/ns/{kind}") for kind in KINDS[:3]]
    assert not made & set(links)


def test_the_spare_ends_with_its_zygote(containers):
    async def scenario(harness):
        spare = await spare_of(harness.zygote)
        os.kill(harness.zygote.pid, signal.SIGKILL)
        for _ in range(100):
            if not namespaces_held_quietly(spare):
                return True
            await asyncio.sleep(0.02)
        return False

    assert containers(scenario)
