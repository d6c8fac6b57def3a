"""Which images of a name are meant by platforms. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from orlop.images.model import Image, ImageNotFound
from orlop.oci.platform import Platform

__all__ = ["choose_platforms"]


def choose_platforms(name: str, images: Sequence[Image], platforms: Sequence[Platform]) -> list[Image]:
    """The images for `platforms`, each once, in the order of `images`.

    Raises:
        ImageNotFound: there is none for one of them.
    """
    chosen = set()
    for platform in platforms:
        fitting = [image for image in images if image.config.platform.runs_on(platform)]
        if not fitting:
            raise ImageNotFound(
                f"image with reference {name} was found but does not provide "
                f"the specified platform ({platform})",
                hint="it is here for " + ", ".join(str(image.config.platform) for image in images),
            )
        chosen.add(max(fitting, key=lambda image: image.config.platform.variant).id)
    return [image for image in images if image.id in chosen]
