"""Help for tests of the frontend: lower a text against made-up base images."""

import json

from orlop.build.dockerfile.draft import BaseImage
from orlop.build.dockerfile.lower import lower, read_dockerfile
from orlop.build.dockerfile.options import BasesNeeded, FrontendOptions
from orlop.oci.imageconfig import parse_image_config

LAYER = "sha256:" + "1" * 64


def base_config(**run):
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-02T03:04:05Z",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [LAYER]},
        "history": [{"created": "2020-01-02T03:04:05Z", "created_by": "made up"}],
        "x.unknown": {"kept": True},
    }
    return parse_image_config(json.dumps(document).encode())


def lowered(text, *, images=None, **options):
    """Lower `text`; images maps names to run configs, any other name is a plain image."""
    dockerfile = read_dockerfile(text.encode() if isinstance(text, str) else text)
    bases = {}
    while True:
        try:
            return lower(dockerfile, FrontendOptions(**options), bases)
        except BasesNeeded as needed:
            for request in needed.requests:
                run = (images or {}).get(request.reference, {})
                bases[request] = BaseImage(request.reference, base_config(**run))
