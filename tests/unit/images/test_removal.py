"""Docker's rules for `rmi`, as a table."""

import pytest

from orlop.images.removal import ImageInUse, ImageUser, Subject, plan_removal
from orlop.oci.digest import Digest
from orlop.oci.reference import parse_reference

ID = Digest("sha256:" + "a" * 64)
DIGEST = "@sha256:" + "b" * 64
STOPPED, RUNNING = ImageUser("1" * 64, is_running=False), ImageUser("2" * 64, is_running=True)


def plan(asked, names, users=(), *, force=False, has_children=False):
    subject = Subject(ID, tuple(parse_reference(name) for name in names), users, has_children)
    reference = None if asked == "id" else parse_reference(asked).with_default_tag()
    found = plan_removal(subject, asked, reference, force=force)
    return [name.familiar for name in found.untag], found.delete


@pytest.mark.parametrize(
    ("asked", "names", "untag", "delete"),
    [
        ("a", ["a:latest"], ["a:latest"], True),
        ("a", ["a:latest", "b:latest"], ["a:latest"], False),
        ("a", ["a:latest", "a" + DIGEST], ["a:latest", "a" + DIGEST], True),
        ("a:1", ["a:1", "a:2", "a" + DIGEST], ["a:1"], False),
        ("a", ["a:latest", "a" + DIGEST, "b:latest"], ["a:latest", "a" + DIGEST], False),
        ("a" + DIGEST, ["a:latest", "a" + DIGEST], ["a" + DIGEST], False),
        ("id", ["a:latest"], ["a:latest"], True),
        ("id", [], [], True),
        ("id", ["a:latest", "a" + DIGEST], ["a:latest", "a" + DIGEST], True),
        ("id", ["a" + DIGEST], ["a" + DIGEST], True),
    ],
)
def test_what_goes(asked, names, untag, delete):
    assert plan(asked, names) == (untag, delete)


@pytest.mark.parametrize(
    "names", [["a:1", "a:2"], ["a:1", "b:1"], ["a:1", "b" + DIGEST], ["a" + DIGEST, "b" + DIGEST]]
)
def test_an_id_with_several_names_needs_force(names):
    with pytest.raises(ImageInUse, match="must be forced"):
        plan("id", names)
    assert plan("id", names, force=True)[1]


def test_containers_stop_the_last_name_but_not_one_of_several():
    with pytest.raises(ImageInUse, match="must force"):
        plan("a", ["a:latest"], (STOPPED,))
    assert plan("a", ["a:latest", "b:latest"], (RUNNING,)) == (["a:latest"], False)


def test_force_deletes_under_stopped_containers_and_never_under_running_ones():
    assert plan("a", ["a:latest"], (STOPPED,), force=True) == (["a:latest"], True)
    assert plan("a", ["a:latest"], (RUNNING,), force=True) == (["a:latest"], False)
    assert plan("id", ["a:latest"], (STOPPED,), force=True) == (["a:latest"], True)
    with pytest.raises(ImageInUse, match="cannot be forced"):
        plan("id", ["a:latest"], (RUNNING,), force=True)


def test_an_image_with_children_loses_its_name_only():
    assert plan("a", ["a:latest"], has_children=True) == (["a:latest"], False)
    with pytest.raises(ImageInUse, match="dependent child images"):
        plan("id", ["a:latest"], force=True, has_children=True)
