"""A small disk of our own: it can be filled to the last byte, and it can lose its power."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["Disk"]


class Disk:
    """An ext4 in a file, mounted at `path`; a context manager.

    What was not synced is not in the file for a long time: a copy of the file is what a power cut leaves.
    """

    def __init__(self, size_mb=96, inodes=4096, image=None):
        self._directory = Path(tempfile.mkdtemp(prefix="orlop-disk-"))
        self.image = self._directory / "image"
        self.path = self._directory / "mount"
        self.path.mkdir()
        if image is not None:
            _copy(image, self.image)
            return
        with open(self.image, "wb") as file:
            file.truncate(size_mb << 20)
        options = ["-q", "-F", "-m", "0", "-N", str(inodes), "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        subprocess.run(["mkfs.ext4", *options, str(self.image)], check=True)

    def __enter__(self):
        subprocess.run(["mount", "-o", "loop,commit=1000", str(self.image), str(self.path)], check=True)
        return self

    def __exit__(self, *error):
        subprocess.run(["umount", "-l", str(self.path)], check=False)
        shutil.rmtree(self._directory, ignore_errors=True)

    def after_power_cut(self) -> Disk:
        """Another disk with what has reached this one by now; what runs on this one should stand still."""
        return Disk(image=self.image)

    def fill(self) -> None:
        """Use up the last byte."""
        for number, size in enumerate((1 << 20, 1 << 14, 1 << 10, 1)):
            fd = os.open(self.path / f"filler-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            with contextlib.suppress(OSError):
                while size == 1 << 20:
                    os.posix_fallocate(fd, os.fstat(fd).st_size, size)
            with contextlib.suppress(OSError):
                while os.write(fd, b"\1" * size):
                    pass
            os.fsync(fd)
            os.close(fd)

    def use_up_inodes(self) -> None:
        """Make files until no more can be made."""
        folder = self.path / "filler-inodes"
        folder.mkdir()
        with contextlib.suppress(OSError):
            for number in range(1 << 20):
                (folder / str(number)).touch()

    def free(self) -> None:
        """Remove what filled it."""
        for path in self.path.glob("filler-*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(source), str(target)], check=True)
