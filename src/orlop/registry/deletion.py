"""Removing a tag or a manifest from a registry. Spec: OCI distribution-spec, "Content Management"."""

from __future__ import annotations

from orlop.base.errors import Kind
from orlop.oci.digest import Digest
from orlop.registry.auth import scope_text
from orlop.registry.client import Repository
from orlop.registry.errors import RegistryError, parse_problem, pull_error
from orlop.registry.session import Session

__all__ = ["CannotDelete", "delete_reference"]


class CannotDelete(RegistryError):
    """The registry deletes nothing, or no single tags."""

    kind = Kind.UNSUPPORTED
    code = "cannot-delete"


async def delete_reference(repository: Repository, which: str | Digest) -> None:
    """Remove one tag, or a manifest with all its tags when `which` is a digest.

    Args:
        repository: opened for pushing.
        which: a tag or a digest.

    Raises:
        NotOnRegistry: it is not there.
        CannotDelete: the registry does not do that; a tag is never replaced by its digest silently.
        RegistryError: it refuses.
    """

    async def delete(session: Session) -> None:
        path = f"/v2/{repository.reference.path}/manifests/{which}"
        scope = scope_text(repository.reference.path, "pull,delete")
        answer = await session.call("DELETE", session.endpoint.url(path), scope=scope)
        if answer.status in {200, 202, 204}:
            return
        problem = parse_problem(answer.status, answer.headers, answer.body)
        if answer.status in {400, 405, 501} or problem.code == "UNSUPPORTED":
            raise _cannot(session, which, str(problem))
        reference = repository.reference if ":" in which else repository.reference.with_tag(which)
        raise pull_error(problem, reference)

    await repository.try_each(delete)


def _cannot(session: Session, which: str, said: str) -> CannotDelete:
    if ":" in which:
        return CannotDelete(
            f"{session.endpoint.origin} does not delete manifests: {said}",
            hint="deleting has to be enabled at the registry",
        )
    return CannotDelete(
        f"{session.endpoint.origin} does not delete single tags: {said}",
        hint="NAME@DIGEST deletes the manifest, and with it every tag that it has",
    )
