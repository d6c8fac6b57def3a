"""Users and groups as images write them: numbers are ids, names are names, and files have an end."""

import os
import tarfile

import pytest

from support.hostile import FILE, LINK, load
from support.images import GROUP, PASSWD

pytestmark = pytest.mark.system

MISLEADING = (
    PASSWD
    + b"1000:x:0:0:a number for a name:/root:/bin/sh\n"
    + b"2000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n"
    + b"wrapped:x:4294967296:4294967296::/:/bin/sh\nminus:x:-1:-1::/:/bin/sh\nempty:x:::::\nshort\n::0:0:::\n"
    + b"high:x:2147483647:2147483647::/:/bin/sh\nover:x:2147483648:0::/:/bin/sh\n\xff\xfe:x:0:0::/:/bin/sh\n"
)
MISLEADING_GROUPS = GROUP + b"wheel:x:0:1000,1234,4242\n1234:x:0:\n4242:x:0:4242\nmany:x:77:user,user,root\n"
SHOW = ("grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status")


@pytest.fixture(scope="module")
def image(engine):
    return load(
        engine,
        "users:1",
        ("etc/passwd", FILE, MISLEADING, 0o644),
        ("etc/group", FILE, MISLEADING_GROUPS, 0o644),
    )


@pytest.fixture(scope="module")
def running(door, image):
    name = door.create(image, "sleep", "1000").value()["Id"]
    assert door.ask("POST", f"/containers/{name}/start").status == 204
    yield name
    door.ask("DELETE", f"/containers/{name}", force=1)


@pytest.fixture(autouse=True)
def _stays_alive():
    """The container of this module outlives its tests."""


def ids(text):
    """(uid, gid, groups): all four of the kernel's ids are the same."""
    rows = {line.split(":")[0]: line.split(":")[1].split() for line in text.splitlines() if ":" in line}
    assert len(set(rows["Uid"])) == len(set(rows["Gid"])) == 1
    return int(rows["Uid"][0]), int(rows["Gid"][0]), {int(item) for item in rows["Groups"]}


USERS = {
    "": (0, 0),
    "0": (0, 0),
    "00": (0, 0),
    "1000": (1000, 1000),
    "01000": (1000, 1000),
    "1000:": (1000, 1000),
    "1000:1000": (1000, 1000),
    "2000": (2000, 0),
    "1234": (1234, 0),
    "1234:1234": (1234, 1234),
    "user": (1000, 1000),
    "user:4242": (1000, 4242),
    "high": (2147483647, 2147483647),
    "2147483647": (2147483647, 2147483647),
    "4242": (4242, 0),
}
REFUSED = (
    "-1 2147483648 4294967295 4294967296 4294968296 18446744073709551616 99999999999999999999999999999999999 "
    "wrapped minus over 1000:-1 1000:2147483648 1000:4294967296 1000:nogroup-here 0x0 \u0661 \u00b2 1e3 1_000 root\0 "
    "root\n ../root"
).split(" ")


@pytest.mark.parametrize("user", USERS)
def test_what_a_user_means(door, image, running, user):
    """CVE-2026-30892, CVE-2016-3697, CVE-2024-40635, CVE-2026-46680: numbers looked up as names, or wrapped to 0."""
    wanted = USERS[user]

    at_exec = door.execute(running, *SHOW, User=user)
    at_start = door.run(image, *SHOW, User=user)

    assert (at_exec.error, at_start.error) == ("", "")
    for done in (at_exec, at_start):
        uid, gid, groups = ids(done.output)
        assert (uid, gid) == wanted
        assert 0 not in groups or gid == 0, "a group of uid 0 that was not asked for"


@pytest.mark.parametrize("user", REFUSED)
def test_who_is_nobody(door, image, running, user):
    """CVE-2026-30892, CVE-2024-40635: what is no id and no name is nobody, and not root."""
    at_exec = door.execute(running, *SHOW, User=user)
    at_start = door.run(image, *SHOW, User=user)

    assert "Uid" not in at_exec.output + at_start.output
    assert at_start.code == -1
    assert at_start.status in (400, 404, 409, 500)
    assert at_start.error


@pytest.mark.parametrize(
    ("user", "added", "wanted"),
    [
        ("user", [], {1000, 2000, 77}),
        ("user:user", [], {1000}),
        ("1000", [], {1000, 2000, 77}),
        ("1234", [], {0}),
        ("1234:1234", [], {1234}),
        ("1234:1234", ["nogroup"], {1234, 65534}),
        ("user", ["1234"], {1000, 1234, 2000, 77}),
    ],
)
def test_groups_are_those_of_the_user_and_no_others(door, image, user, added, wanted):
    """CVE-2022-36109, CVE-2023-25173, CVE-2022-2989, CVE-2022-2990, CVE-2022-2995: the primary group is always
    among the supplementary ones, so that a file that denies it stays denied."""
    done = door.run(image, *SHOW, User=user, host={"GroupAdd": added})

    assert ids(done.output)[2] == wanted


def test_a_file_that_denies_a_group_is_not_read_by_it(engine, door):
    """CVE-2022-2995: a mode that forbids the group must hold for whoever is in it."""
    load(engine, "users:2", ("denied", FILE, b"secret", 0o604, 0))

    done = door.run("users:2", "cat", "/denied", User="1000:0")

    assert done.code == 1
    assert "secret" not in done.output


def sparse(name, size, head=b""):
    """A member that GNU tar calls sparse is no regular file for us: a file of zeros that compresses well."""
    return (name, FILE, head + bytes(size))


@pytest.mark.parametrize("user", ["user", "1000"])
@pytest.mark.parametrize("kind", ["passwd", "group"])
def test_a_giant_file_of_accounts(engine, door, started, kind, user):
    """CVE-2026-47262, GHSA-mjcv: gigabytes of /etc/passwd, or a million groups, are not read into memory."""
    name = started(host={"Memory": 256 << 20})
    made = door.execute(name, "sh", "-c", f"truncate -s 3G /etc/{kind}")
    assert made.code == 0, made.output
    pid = engine.pid

    before = resident(pid)
    done = door.execute(name, *SHOW, User=user)
    door.ask("POST", f"/containers/{name}/restart", t=0)

    assert "Uid" not in done.output
    assert f"/etc/{kind} is larger than" in done.output + done.error
    assert resident(pid) - before < 64 << 20


def test_a_million_groups(engine, door):
    """CVE-2026-47262: what fits the limit in bytes is still read in reasonable time and memory."""
    lines = b"".join(b"g%d:x:%d:user\n" % (number, number) for number in range(3000, 150_000))
    load(engine, "users:3", ("etc/group", FILE, lines[: 3 << 20], 0o644))

    done = door.run("users:3", *SHOW, User="user")

    assert done.error or len(ids(done.output)[2]) <= 65536


@pytest.mark.parametrize(
    "link", ["/proc/self/environ", "/dev/zero", "/proc/kmsg", "../../../../etc/shadow", "loop"]
)
def test_accounts_behind_a_link_are_of_the_container(engine, door, link):
    """CVE-2019-18466: what is read for the user is never the host's, and never without an end."""
    load(
        engine, "users:4", ("etc/passwd", LINK, link), ("etc/loop", LINK, "passwd"), ("etc/group", LINK, link)
    )

    named = door.run("users:4", *SHOW, User="daemon")
    numbered = door.run("users:4", *SHOW, User="1000:1000")

    assert "unable to find user daemon" in named.error
    assert ids(numbered.output)[:2] == (1000, 1000)


def test_a_user_of_the_image_s_configuration(engine, door):
    """CVE-2026-30892: the same rules for what the image says, and `exec` follows the container's user."""
    for user, wanted in (("1000:", (1000, 1000)), ("2000", (2000, 0)), ("-1", None), ("4294967296", None)):
        load(engine, "users:5", ("etc/passwd", FILE, MISLEADING, 0o644), User=user)
        done = door.run("users:5", *SHOW)
        assert (ids(done.output)[:2] if not done.error else None) == wanted


def test_files_that_are_copied_in_belong_to_the_user(engine, door, started):
    """CVE-2026-30892 for `cp -a`: the owner of copied files is found by the same rules."""
    load(engine, "users:6", ("etc/passwd", FILE, MISLEADING, 0o644))
    for user, wanted in (("1000", "1000"), ("2000", "2000"), ("-1", None)):
        name = door.create("users:6", "true", User=user).value()["Id"]
        data = archive_of(b"x")
        reply = door.ask("PUT", f"/containers/{name}/archive", data, path="/tmp", copyUIDGID=1)
        assert reply.status == (200 if wanted else 404), reply.message
        if wanted:
            got = door.ask("GET", f"/containers/{name}/archive", path="/tmp/f").body
            assert str(owner_in(got)) == wanted
        door.ask("DELETE", f"/containers/{name}", force=1)


def archive_of(data):
    from support.hostile import tar_of

    return tar_of(("f", FILE, data))


def owner_in(data):
    import io

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmember("f").uid


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
