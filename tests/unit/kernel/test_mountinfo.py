import pytest

from orlop.kernel.filesystems import parse_mountinfo

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
