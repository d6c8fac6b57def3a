"""An OCI layout with one name for two platforms and an attestation, as buildx pushes it."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
from pathlib import Path

from support.images import busybox_layer

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
PLATFORMS = ("amd64", "arm64")


class Layout:
    """The files of a layout; `index` names what a registry would get."""

    def __init__(self, root: Path, *, has_attestation: bool = True):
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.images = {arch: self._image(arch) for arch in PLATFORMS}
        entries = [
            entry | {"platform": {"os": "linux", "architecture": arch}} for arch, entry in self.images.items()
        ]
        if has_attestation:
            self.attestation = self._attestation(entries[0]["digest"])
            entries.append(self.attestation)
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
        self.index = self._blob(document, INDEX)
        top = self.index | {"annotations": {"org.opencontainers.image.ref.name": "v1"}}
        (root / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [top]})
        )

    def push(self, address: str) -> None:
        """Copy everything to a registry without TLS."""
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests",
             "--dest-tls-verify=false", f"oci:{self.root}:v1", f"docker://{address}"],
            check=True, capture_output=True, env=os.environ | {"TMPDIR": "/tmp"},
        )  # fmt: skip

    def read(self, digest: str) -> bytes:
        return (self.root / "blobs" / "sha256" / digest[7:]).read_bytes()

    def config_digest(self, arch: str) -> str:
        return json.loads(self.read(self.images[arch]["digest"]))["config"]["digest"]

    def _image(self, arch: str) -> dict:
        layer = busybox_layer(f"for {arch}")
        # a level that Orlop does not use: compressing again gives other bytes
        packed = self._blob(gzip.compress(layer, 1, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
        config = {
            "architecture": arch,
            "os": "linux",
            "config": {"Cmd": ["cat", "/etc/marker"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [packed],
        }
        return self._blob(document, MANIFEST)

    def _attestation(self, subject: str) -> dict:
        statement = self._blob(
            {"predicateType": "https://slsa.dev/provenance/v0.2"}, "application/vnd.in-toto+json"
        )
        config = {"architecture": "unknown", "os": "unknown", "config": {},
                  "rootfs": {"type": "layers", "diff_ids": [statement["digest"]]}}  # fmt: skip
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._blob(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [statement],
        }
        return self._blob(document, MANIFEST) | {
            "annotations": {
                "vnd.docker.reference.digest": subject,
                "vnd.docker.reference.type": "attestation-manifest",
            },
            "platform": {"architecture": "unknown", "os": "unknown"},
        }

    def _blob(self, value: object, media_type: str) -> dict:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = hashlib.sha256(data).hexdigest()
        (self.root / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
