import pytest

from orlop.runtime.identity import Identity, UserUnknown, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment
user:x:1000:1001::/home/user:/bin/sh
1000:x:0:0::/evil:/bin/sh
odd:x:notanumber:5::/x:
huge:x:4294967296:5::/x:
twice:x:7:7::/first:
twice:x:8:8::/second:
"""
GROUP = b"""root:x:0:
wheel:x:10:root,user
users:x:100:user
staff:x:50:
2000:x:0:user
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (0, 10), "/root")),
        ("root", Identity(0, 0, (0, 10), "/root")),
        ("0", Identity(0, 0, (0, 10), "/root")),
        ("00", Identity(0, 0, (0, 10), "/root")),
        ("user", Identity(1000, 1001, (1001, 10, 100, 0), "/home/user")),
        ("1000", Identity(1000, 1001, (1001, 10, 100, 0), "/home/user")),
        ("1000:", Identity(1000, 1001, (1001, 10, 100, 0), "/home/user")),
        ("user:staff", Identity(1000, 50, (50,), "/home/user")),
        ("user:77", Identity(1000, 77, (77,), "/home/user")),
        ("4242", Identity(4242, 0, (0,), "/")),
        ("4242:4243", Identity(4242, 4243, (4243,), "/")),
        (":staff", Identity(0, 50, (50,), "/root")),
        ("2147483647", Identity(2147483647, 0, (0,), "/")),
        ("twice", Identity(7, 7, (7,), "/first")),
    ],
)
def test_users_as_docker_reads_them(user, expected):
    assert resolve(user, (), PASSWD, GROUP) == expected


@pytest.mark.parametrize(
    "user", ["-1", "2147483648", "4294967296", "99999999999999999999", "1000:-5", "0:2147483648"]
)
def test_numbers_out_of_range_are_refused(user):
    with pytest.raises(UserUnknown, match="uids and gids must be in range 0-2147483647"):
        resolve(user, (), PASSWD, GROUP)


def test_unknown_names_are_told_in_dockers_words():
    with pytest.raises(UserUnknown, match="unable to find user nope: no matching entries in passwd file"):
        resolve("nope", (), PASSWD, GROUP)
    with pytest.raises(UserUnknown, match="unable to find group nope: no matching entries in group file"):
        resolve("user:nope", (), PASSWD, GROUP)
    with pytest.raises(UserUnknown, match="Unable to find group nope"):
        resolve("user", ("nope",), PASSWD, GROUP)


@pytest.mark.parametrize("user", ["+5x", "1_000", "\u0661", "0x10", "1e3", "odd", "huge", " 5"])
def test_what_looks_like_a_number_but_is_none_is_a_name(user):
    with pytest.raises(UserUnknown):
        resolve(user, (), PASSWD, GROUP)


def test_added_groups_come_after_the_own_ones_once():
    who = resolve("user", ("staff", "100", "3000"), PASSWD, GROUP)

    assert who.groups == (1001, 10, 100, 0, 50, 3000)


def test_images_without_the_files_know_numbers_only():
    assert resolve("5:6", (), b"", b"") == Identity(5, 6, (6,), "/")
    assert resolve("", (), b"", b"") == Identity(0, 0, (0,), "/")


def test_hostile_files_are_passed_over():
    junk = b"\xff\xfe\n:::\n::::::\n\x00:x:5\nname\n" + b"a" * 100000 + b"\n" + PASSWD

    assert resolve("user", (), junk, b"\xff:x:\n").uid == 1000
