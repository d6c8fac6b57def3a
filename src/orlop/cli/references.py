"""Image names as the API's separate `repo` and `tag` parameters want them."""

from __future__ import annotations

from orlop.oci.reference import parse_reference

__all__ = ["split_tag"]


def split_tag(text: str) -> tuple[str, str]:
    """The familiar name, and its tag or digest ("" when there is none).

    Raises:
        InvalidReference: not a reference.
    """
    reference = parse_reference(text)
    return reference.familiar_name, str(reference.digest or reference.tag or "")
