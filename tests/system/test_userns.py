"""User namespaces of containers, seen by unmodified clients."""

import io
import json
import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orlop.engine.idmaps import DEFAULT_POOL, RANGE
from support import images
from support.orlopd import Orlopd

pytestmark = pytest.mark.system

RUN = ("run", "--rm", "--network", "none")


@pytest.fixture(scope="module")
def mapping_engine():
    """An engine whose containers have a range of ids each unless they say otherwise."""
    with Orlopd("--default-userns-mode", "auto") as running:
        load_busybox(running)
        yield running


@pytest.fixture(autouse=True)
def _no_containers(request):
    yield
    if "mapping_engine" in request.fixturenames:
        request.getfixturevalue("mapping_engine").remove_containers()


def load_busybox(engine):
    engine.docker("load", input=images.busybox_archive("busybox:latest"))


def shell(engine, script, *flags, image="busybox", check=True):
    return engine.docker(*RUN, *flags, image, "sh", "-c", script, check=check)


def started(engine, *flags):
    return engine.docker("run", "-d", "--network", "none", *flags, "busybox", "sleep", "300").stdout.strip()


def inspected(engine, name):
    return json.loads(engine.docker("inspect", name).stdout)[0]


def uid_map(engine, name):
    """(inside, outside, count) of a running container."""
    text = Path(f"/proc/{inspected(engine, name)['State']['Pid']}/uid_map").read_text()
    return tuple(int(word) for word in text.split())


def test_a_container_has_a_range_of_its_own_by_default(mapping_engine):
    first, second = started(mapping_engine), started(mapping_engine, "--user", "33:33")

    maps = [uid_map(mapping_engine, name) for name in (first, second)]
    assert [(inside, count) for inside, _, count in maps] == [(0, RANGE)] * 2
    assert abs(maps[0][1] - maps[1][1]) >= RANGE
    assert all(DEFAULT_POOL.start <= start < DEFAULT_POOL.start + DEFAULT_POOL.count for _, start, _ in maps)
    pid = inspected(mapping_engine, second)["State"]["Pid"]
    assert os.stat(f"/proc/{pid}").st_uid == maps[1][1] + 33
    assert mapping_engine.docker("exec", second, "id", "-u").stdout.strip() == "33"
    assert str(maps[1][1] + 33) in mapping_engine.docker("top", second, "-eo", "uid,pid,comm").stdout
    assert "name=userns" in mapping_engine.docker("info", "-f", "{{.SecurityOptions}}").stdout


def test_files_have_the_containers_ids_inside_and_on_disk(mapping_engine, tmp_path):
    script = "touch /root/a /v/a /b/a && chown 1000:1001 /root/a /v/a /b/a && stat -c %u:%g /root/a /v/a /b/a /etc/hosts /v"
    (tmp_path / "theirs").touch()
    shown = shell(mapping_engine, f"{script}; stat -c %u /b/theirs", "-v", "data:/v", "-v", f"{tmp_path}:/b")

    assert shown.stdout.split() == [*["1000:1001"] * 3, "0:0", "0:0", "0"]
    assert (tmp_path / "a").stat().st_uid == 1000
    again = shell(mapping_engine, "stat -c %u:%g /v/a; rm /v/a", "-v", "data:/v", "--userns", "host")
    assert again.stdout.split() == ["1000:1001"]
    mapping_engine.docker("volume", "rm", "data")


def test_a_bind_may_be_left_unmapped(mapping_engine, tmp_path):
    shown = shell(mapping_engine, "stat -c %u /b; touch /b/x", "-v", f"{tmp_path}:/b:noidmap", check=False)

    assert (shown.stdout.strip(), shown.returncode) == ("65534", 1)


def test_execs_copies_and_streams(mapping_engine, tmp_path):
    engine = mapping_engine
    name = started(engine)
    (tmp_path / "in").write_text("hello")
    os.chown(tmp_path / "in", 1234, 1235)

    engine.docker("cp", tmp_path / "in", f"{name}:/root/plain")
    engine.docker("cp", "-a", tmp_path / "in", f"{name}:/root/kept")
    engine.docker(
        "exec", name, "sh", "-c", "echo made > /root/made; chown 7:8 /root/made; echo x > /dev/stdout"
    )

    owners = engine.docker("exec", name, "stat", "-c", "%u:%g", "/root/plain", "/root/kept").stdout.split()
    assert owners == ["1234:1235", "1234:1235"]
    for path in ("running", "stopped"):
        data = engine.docker("cp", f"{name}:/root/made", "-", input=b"").stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            (entry,) = archive.getmembers()
        assert (entry.uid, entry.gid) == (7, 8), path
        engine.docker("stop", "-t", "0", name)
    engine.docker("cp", "-a", tmp_path / "in", f"{name}:/root/later")
    engine.docker("start", name)
    assert engine.docker("exec", name, "stat", "-c", "%u", "/root/later").stdout.strip() == "1234"
    changes = engine.docker("diff", name).stdout.splitlines()
    assert {"A /root/plain", "A /root/kept", "A /root/made", "A /root/later"} <= set(changes)


def test_what_is_committed_and_exported_has_the_containers_ids(mapping_engine):
    engine = mapping_engine
    name = engine.docker(
        "run", "-d", "--network", "none", "busybox", "sh", "-c", "touch /mine; chown 5:6 /mine; sleep 300"
    ).stdout.strip()
    wait_until(
        lambda: engine.docker("exec", name, "stat", "-c", "%u:%g", "/mine", check=False).stdout == "5:6\n"
    )

    engine.docker("commit", name, "kept:1")
    exported = engine.docker("export", name, input=b"").stdout

    for flags in ((), ("--userns", "host")):
        assert shell(engine, "stat -c %u:%g /mine", *flags, image="kept:1").stdout.strip() == "5:6"
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        entries = {item.name: item for item in archive}
    assert (entries["mine"].uid, entries["bin/busybox"].uid) == (5, 0)
    engine.docker("rm", "-f", name)
    engine.docker("rmi", "kept:1")


def wait_until(is_true):
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, "not within 20 seconds"
        time.sleep(0.05)


def test_a_build_and_what_it_made_run(mapping_engine, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN touch /built && chown 9:9 /built\nUSER 9\n")

    mapping_engine.docker("build", "-t", "built:1", str(tmp_path))

    assert shell(mapping_engine, "stat -c %u /built; id -u", image="built:1").stdout.split() == ["9", "9"]
    mapping_engine.docker("rmi", "built:1")


@pytest.mark.parametrize(
    "script",
    [
        "mknod /tmp/disk b 254 0",
        "mount -t tmpfs none /mnt",
        "echo core > /proc/sys/kernel/core_pattern",
        "echo b > /proc/sysrq-trigger",
        "chown 70000 /tmp",
        "mkdir /sys/fs/cgroup/x",
    ],
)
def test_the_host_is_out_of_reach(mapping_engine, script):
    flags = ("--cap-add", "ALL", "--security-opt", "seccomp=unconfined")
    bare = "umount -l /proc/sys /proc/sysrq-trigger /sys 2>/dev/null; "
    flags, script = (flags, bare + script) if "mount -t" not in script else ((), script)

    assert shell(mapping_engine, script, *flags, check=False).returncode != 0


def test_a_terminal_a_health_check_and_a_tmpfs(mapping_engine):
    engine = mapping_engine
    script = "tty; stat -c %u /t /dev/console; touch /t/x; stat -c %u /u; grep -o ' /t .*noexec' /proc/mounts; id -u"
    shown = shell(engine, script, "-t", "--tmpfs", "/t", "--tmpfs", "/u:uid=7,size=1m").stdout
    assert shown.split()[:4] == ["/dev/pts/0", "0", "0", "7"]
    assert shown.split()[-1] == "0"
    assert "noexec" in shown
    name = started(engine, "--health-cmd", "test $(id -u) = 0", "--health-interval", "100ms")
    wait_until(lambda: inspected(engine, name)["State"]["Health"]["Status"] == "healthy")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--privileged",), "privileged mode is incompatible with user namespaces"),
        (("--network", "host"), "cannot share the host's network namespace when user namespaces are enabled"),
        (("--pid", "host"), "cannot share the host PID namespace when user namespaces are enabled"),
        (("-v", "/srv:/srv:rshared"), "shared mount propagation is incompatible with user namespaces"),
    ],
)
def test_what_needs_the_hosts_ids_is_refused_unless_they_are_asked_for(mapping_engine, flags, text):
    refused = mapping_engine.docker("run", "--rm", *flags, "busybox", "true", check=False)

    assert refused.returncode == 125
    assert text in refused.stderr
    if "-v" not in flags:
        mapping_engine.docker("run", "--rm", "--userns", "host", *flags, "busybox", "true")


def test_containers_that_share_a_namespace_share_the_user_namespace(mapping_engine):
    engine = mapping_engine
    first, other = started(engine, "--ipc", "shareable"), started(engine, "--ipc", "shareable")
    plain = started(engine, "--userns", "host", "--ipc", "shareable")

    joined = ("run", "--rm", "--network", f"container:{first}")
    shown = engine.docker(
        *joined,
        "--pid",
        f"container:{first}",
        "busybox",
        "sh",
        "-c",
        "cat /proc/self/uid_map; ps | grep -c sleep",
    )
    assert tuple(map(int, shown.stdout.split()[:3])) == uid_map(engine, first)
    assert int(shown.stdout.split()[3]) >= 1
    for mode in (other, plain):
        refused = engine.docker(*joined, "--ipc", f"container:{mode}", "busybox", "true", check=False)
        assert refused.returncode == 125
        assert "cannot join namespaces of containers with different user namespaces" in refused.stderr
    refused = engine.docker(*joined, "--userns", "host", "busybox", "true", check=False)
    assert "cannot join the user namespace of the host and those of another container" in refused.stderr


def test_containers_made_at_once_have_disjoint_ranges_that_survive_a_killed_engine():
    with Orlopd("--userns-pool", f"900000:{9 * RANGE}") as engine:
        load_busybox(engine)
        flags = ("--security-opt", "userns=auto")
        with ThreadPoolExecutor(4) as pool:
            names = list(pool.map(lambda _: started(engine, *flags), range(8)))
        before = {name: uid_map(engine, name) for name in names}
        assert len({start for _, start, _ in before.values()}) == 8

        engine.kill()
        engine.start()

        ninth = started(engine, *flags)
        assert uid_map(engine, ninth)[1] not in {start for _, start, _ in before.values()}
        refused = engine.docker("create", *flags, "busybox", check=False)
        assert "no range of 65536 ids is free in the pool" in refused.stderr
        engine.docker("rm", "-f", names[0])
        assert uid_map(engine, started(engine, *flags)) == before[names[0]]
        engine.docker("restart", "-t", "0", names[1])
        assert uid_map(engine, names[1]) == before[names[1]]


def test_ways_to_ask_for_a_range(engine):
    for flags in (("--security-opt", "userns=auto"), ("--security-opt", "userns=private")):
        assert shell(engine, "cat /proc/self/uid_map", *flags).stdout.split()[1:] != ["0", "4294967295"]
    shown = engine.orlop(
        "run", "--rm", "--userns", "auto", "--network", "none", "busybox", "cat", "/proc/self/uid_map"
    )
    assert shown.stdout.split()[2] == str(RANGE)
    assert shell(engine, "cat /proc/self/uid_map").stdout.split() == ["0", "0", "4294967295"]
    refused = engine.docker("run", "--security-opt", "userns=some", "busybox", check=False)
    assert "invalid user namespace mode: some" in refused.stderr
    assert "invalid USER mode" in engine.docker("run", "--userns", "auto", "busybox", check=False).stderr


class Remapped(Orlopd):
    """An engine with an /etc/subuid and /etc/subgid of its own."""

    def command(self):
        table = self.root / "subids"
        table.write_text("dockremap:800000:1000\ndockremap:900000:70000\n")
        script = 'mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, str(table), *super().command()]


def test_userns_remap_gives_every_container_the_one_map_and_leaves_binds_alone(tmp_path):
    os.chown(tmp_path, 900500, 800007)
    with Remapped("--userns-remap", "default") as engine:
        load_busybox(engine)
        script = "tr -s ' ' < /proc/self/uid_map; stat -c %u:%g /b /v /bin/busybox; stat -c %u /b/own"
        (tmp_path / "own").touch()
        first = shell(engine, script, "-v", f"{tmp_path}:/b", "-v", "data:/v").stdout.splitlines()

        assert first[:2] == [" 0 800000 1000", " 1000 900000 70000"]
        assert first[2:] == ["1500:7", "0:0", "0:0", "65534"]
        assert shell(engine, "stat -c %u /own", "-v", f"{tmp_path}/own:/own:idmap").stdout.strip() == "0"
        assert "name=userns" in engine.docker("info", "-f", "{{.SecurityOptions}}").stdout
        engine.docker("run", "--rm", "--privileged", "--userns", "host", "busybox", "true")
