import pytest

from orlop.kernel.filesystems import filesystem_of, parse_mountinfo

LINE = rb"36 35 98:0 /mnt1 /mnt\040two\134x rw,noatime master:1 shared:2 - ext3 /dev/root\011x rw,errors=continue"


def test_a_line_of_proc_5():
    (entry,) = parse_mountinfo(LINE + b"\n")

    assert (entry.id, entry.parent_id, entry.device, entry.root) == (36, 35, (98, 0), b"/mnt1")
    assert (entry.target, entry.source) == (b"/mnt two\\x", b"/dev/root\tx")
    assert entry.propagation == ("master:1", "shared:2")
    assert (entry.kind, entry.super_options) == ("ext3", ("rw", "errors=continue"))


def test_no_optional_fields():
    (entry,) = parse_mountinfo(b"1 0 0:1 / / rw - rootfs none rw\n")

    assert entry.propagation == ()


@pytest.mark.parametrize("line", [b"x", b"1 2 3:4 / / rw ext4 none rw", b"1 0 0:1 / / rw - tmpfs"])
def test_other_lines_are_refused(line):
    with pytest.raises(ValueError, match="mountinfo"):
        list(parse_mountinfo(line))


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/data/x", "xfs"), ("/data", "xfs"), ("/database", "ext4"), ("/data/in/y", "tmpfs"), ("/", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_the_last_mount_above_it(path, kind):
    table = list(
        parse_mountinfo(
            b"1 0 8:1 / / rw - ext4 /dev/a rw\n"
            b"2 1 8:2 / /data rw - btrfs /dev/b rw\n"
            b"3 2 8:3 / /data rw - xfs /dev/c rw\n"
            b"4 3 0:9 / /data/in rw - tmpfs none rw\n"
        )
    )

    assert filesystem_of(path, table) == kind


def test_a_path_under_no_mount_has_no_known_file_system():
    assert filesystem_of("/x", []) == ""
