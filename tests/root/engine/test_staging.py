"""Parts of volumes are resolved inside the volume, whatever becomes of it meanwhile."""

import os
import threading

import pytest

from orlop.engine.staging import NotAccessible, _open_part
from orlop.kernel.mount import MS_BIND, mount
from orlop.kernel.mountpoint import is_mounted, unmount


def test_a_directory_that_turns_into_a_link_never_leads_outside(tmp_path):
    volume = tmp_path / "volume"
    (volume / "real" / "in").mkdir(parents=True)
    outside = tmp_path / "outside"
    (outside / "in").mkdir(parents=True)
    (volume / "link").symlink_to(outside)
    (volume / "sub").symlink_to("real")
    inside = (volume / "real" / "in").stat().st_ino
    is_over = threading.Event()

    def swap():
        number = 0
        while not is_over.is_set():
            number += 1
            os.symlink(str(outside) if number % 2 else "real", volume / "new")
            os.rename(volume / "new", volume / "sub")

    swapper = threading.Thread(target=swap)
    swapper.start()
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY)
    outcomes = set()
    try:
        for _ in range(2000):
            try:
                fd = _open_part(root, str(volume), "sub/in")
            except NotAccessible:
                outcomes.add("refused")
                continue
            assert os.fstat(fd).st_ino == inside
            outcomes.add("inside")
            os.close(fd)
    finally:
        is_over.set()
        swapper.join()
        os.close(root)
    assert outcomes == {"refused", "inside"}


@pytest.mark.parametrize("path", ["..", "link", "/etc", "proc/self/root"])
def test_what_leads_out_is_refused(tmp_path, path):
    (tmp_path / "link").symlink_to("/proc/self/root/etc")
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(NotAccessible):
            _open_part(root, str(tmp_path), path)
    finally:
        os.close(root)


def test_a_bind_of_the_same_file_system_is_seen_and_taken_away(tmp_path):
    place, other = tmp_path / "place", tmp_path / "other"
    place.mkdir()
    other.mkdir()
    assert not is_mounted(str(place))
    mount(str(other), str(place), None, MS_BIND)
    mount(str(other), str(place), None, MS_BIND)

    assert is_mounted(str(place))
    unmount(str(place))

    assert not is_mounted(str(place))
    assert not is_mounted(str(tmp_path / "missing"))
