"""Whose limit is set and forgotten, when a container has given its root the project of another."""

import os

import pytest

from orlop.store import writablequota


class Quotas:
    """Project quotas of a file system that has none, by inode."""

    def __init__(self):
        self.projects, self.limits = {}, {}

    def is_enforced(self, fd):
        return True

    def get_project(self, fd):
        return self.projects.get(os.fstat(fd).st_ino, 0)

    def set_project(self, fd, project):
        self.projects[os.fstat(fd).st_ino] = project

    def read_usage(self, fd, project):
        return 0, self.limits.get(project, 0)

    def set_limit(self, fd, project, limit_bytes):
        self.limits[project] = limit_bytes


@pytest.fixture
def quotas(monkeypatch):
    made = Quotas()
    monkeypatch.setattr(writablequota, "projectquota", made)
    return made


def snapshot(top, name):
    for part in ("upper", "work"):
        (top / name / part).mkdir(parents=True)
    return str(top / name / "upper"), str(top / name / "work")


def test_a_container_reaches_no_limit_but_its_own(tmp_path, quotas):
    mine, theirs = snapshot(tmp_path, "mine"), snapshot(tmp_path, "theirs")
    writablequota.limit("mine", *mine, 5)
    writablequota.limit("theirs", *theirs, 7)
    own, other = (quotas.projects[os.stat(paths[1]).st_ino] for paths in (mine, theirs))
    assert own != other

    quotas.projects[os.stat(mine[0]).st_ino] = other  # what its root can do
    writablequota.limit("mine", *mine, 9)
    assert quotas.limits == {own: 9, other: 7}
    assert quotas.projects[os.stat(mine[0]).st_ino] == own

    quotas.projects[os.stat(mine[0]).st_ino] = other
    writablequota.release(mine[1])
    assert quotas.limits == {own: 0, other: 7}
