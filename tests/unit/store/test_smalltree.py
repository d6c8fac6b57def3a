from __future__ import annotations

import os

import pytest

from orlop.store.smalltree import empty_if_small


@pytest.fixture
def root(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_few_entries_are_removed_whatever_their_names(root, tmp_path):
    (tmp_path / "etc" / "a").mkdir(parents=True)
    (tmp_path / "etc" / "a" / "file").write_text("x")
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_text("x")
    os.mkfifo(tmp_path / "pipe")

    assert empty_if_small(root)

    assert os.listdir(root) == []


def test_links_are_removed_not_followed(root, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "kept").write_text("x")
    (tmp_path / "to-directory").symlink_to(outside)
    (tmp_path / "to-file").symlink_to(outside / "kept")

    assert empty_if_small(root)

    assert os.listdir(root) == []
    assert (outside / "kept").read_text() == "x"


def test_many_entries_are_left_to_somebody_else(root, tmp_path):
    for number in range(100):
        (tmp_path / str(number)).touch()

    assert not empty_if_small(root)


def test_deep_trees_are_left_to_somebody_else(root, tmp_path):
    (tmp_path / "/".join("d" * 20)).mkdir(parents=True)

    assert not empty_if_small(root)
    assert (tmp_path / "d").exists()


def test_entries_of_all_directories_count_together(root, tmp_path):
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        for name in range(10):
            (tmp_path / str(number) / str(name)).touch()

    assert not empty_if_small(root)
