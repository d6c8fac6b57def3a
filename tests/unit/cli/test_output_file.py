"""What `-o` may replace."""

import os

import pytest

from orlop.base.errors import InvalidInput
from orlop.cli.output_file import write_stream


class Exchange:
    def chunks(self):
        return iter((b"an ", b"archive"))


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "out.tar"
    path.write_bytes(b"something longer than that")

    write_stream(Exchange(), str(path))

    assert path.read_bytes() == b"an archive"
    assert os.listdir(tmp_path) == ["out.tar"]


def test_a_pipe_or_device_keeps_its_place(tmp_path):
    """The rename of a finished file would put it in the place of /dev/null."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    with pytest.raises(InvalidInput, match="must be a directory or a regular file"):
        write_stream(Exchange(), str(path))

    assert path.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(InvalidInput, match="cannot write"):
        write_stream(Exchange(), str(tmp_path))
