"""What `rmi` takes away: Docker's rules as a pure function of facts.

By name: the name goes; the image goes with its last name. By id: allowed when all names
are one tag with its digests, else it must be forced. Running containers and child images
always stop the deletion of an image; stopped containers do unless it is forced.

Texts are those that the docker CLI and scripts match on: engine/daemon of moby, "image delete".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orlop.base.errors import Kind, OrlopError
from orlop.images.model import short_id
from orlop.oci.digest import Digest
from orlop.oci.reference import Reference

__all__ = ["ImageInUse", "ImageUser", "RemovalPlan", "Subject", "plan_removal", "plan_single", "plan_variant"]


class ImageInUse(OrlopError):
    """The image cannot go, or not without force."""

    kind = Kind.CONFLICT
    code = "image-in-use"


@dataclass(frozen=True, slots=True)
class ImageUser:
    """A container made from the image."""

    container_id: str
    is_running: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything the decision depends on."""

    id: Digest
    names: tuple[Reference, ...]
    users: tuple[ImageUser, ...] = ()
    has_children: bool = False


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """Names to take away, in order, and whether the image goes as well."""

    untag: tuple[Reference, ...]
    delete: bool


def plan_removal(subject: Subject, asked: str, name: Reference | None, *, force: bool) -> RemovalPlan:
    """Decide what removing `asked` does.

    Args:
        subject: the image that `asked` resolved to, with what depends on it.
        asked: what the user wrote, for messages.
        name: the name that `asked` is, or None when it was an id.
        force: remove names and stopped containers' image all the same.

    Raises:
        ImageInUse: with Docker's texts.
    """
    if name is not None:
        return _by_name(subject, asked, name, force=force)
    _refuse_hard(subject)
    if not force and not _is_single(subject.names):
        raise _must_force(subject, "image is referenced in multiple repositories")
    if not force:
        _refuse_stopped(subject)
    return RemovalPlan(subject.names, delete=True)


def plan_single(subject: Subject) -> RemovalPlan:
    """Decide what pruning does to an unused image: everything goes. Raises ImageInUse."""
    _refuse_hard(subject)
    _refuse_stopped(subject)
    return RemovalPlan(subject.names, delete=True)


def plan_variant(subject: Subject, *, force: bool) -> None:
    """Decide whether one image of a name that has others can go. Raises ImageInUse."""
    _refuse_hard(subject)
    if not force:
        _refuse_stopped(subject)


def _by_name(subject: Subject, asked: str, name: Reference, *, force: bool) -> RemovalPlan:
    if not force and _is_single(subject.names) and subject.users:
        container = subject.users[0].container_id[:12]
        raise ImageInUse(
            f'conflict: unable to remove repository reference "{asked}" (must force)'
            f" - container {container} is using its referenced image {short_id(subject.id)}"
        )
    left = [other for other in subject.names if other != name]
    untag = [name]
    if name.digest is None:
        siblings = [other for other in left if other.name == name.name]
        if all(other.digest is not None for other in siblings):
            untag += siblings  # digests of a repository go with its last tag
            left = [other for other in left if other not in siblings]
    if left:
        return RemovalPlan(tuple(untag), delete=False)
    # As in Docker, a name can be taken from an image that must stay: a dangling image remains,
    # unless containers use it or it has children.
    is_needed = subject.has_children or bool(subject.users and not force)
    if any(user.is_running for user in subject.users):
        is_needed = True
    return RemovalPlan(tuple(untag), delete=not is_needed)


def _refuse_hard(subject: Subject) -> None:
    running = next((user for user in subject.users if user.is_running), None)
    if running is not None:
        raise _cannot(subject, f"image is being used by running container {running.container_id[:12]}")
    if subject.has_children:
        raise _cannot(subject, "image has dependent child images")


def _refuse_stopped(subject: Subject) -> None:
    if subject.users:
        container = subject.users[0].container_id[:12]
        raise _must_force(subject, f"image is being used by stopped container {container}")


def _cannot(subject: Subject, why: str) -> ImageInUse:
    return ImageInUse(f"conflict: unable to delete {short_id(subject.id)} (cannot be forced) - {why}")


def _must_force(subject: Subject, why: str) -> ImageInUse:
    return ImageInUse(f"conflict: unable to delete {short_id(subject.id)} (must be forced) - {why}")


def _is_single(names: Sequence[Reference]) -> bool:
    """At most one tag, and every digest in the same repository."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if name.digest is None]
    repositories = {name.name for name in names if name.digest is not None}
    if len(tags) > 1 or len(repositories) != 1:
        return False
    return (tags[0] if tags else names[0]).name in repositories
