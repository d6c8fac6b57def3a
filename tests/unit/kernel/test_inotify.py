import os
import select

import pytest

from orlop.kernel import inotify


def test_events_of_a_directory(tmp_path):
    fd = inotify.open_inotify()
    watch = inotify.add_watch(fd, str(tmp_path), inotify.IN_CREATE | inotify.IN_MOVED_TO)
    assert inotify.read_events(fd) == []

    (tmp_path / "a name").touch()
    (tmp_path / "a name").rename(tmp_path / "b\udcff")

    assert select.select([fd], [], [], 1)[0]
    events = inotify.read_events(fd)
    os.close(fd)
    assert [(e.watch, e.mask, e.name) for e in events] == [
        (watch, inotify.IN_CREATE, b"a name"),
        (watch, inotify.IN_MOVED_TO, b"b\xff"),
    ]


def test_a_missing_path_is_named(tmp_path):
    fd = inotify.open_inotify()
    with pytest.raises(FileNotFoundError) as caught:
        inotify.add_watch(fd, str(tmp_path / "missing"), inotify.IN_CREATE)

    assert caught.value.filename == str(tmp_path / "missing")
    os.close(fd)
