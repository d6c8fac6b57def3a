"""Tars made by the standard library."""

import io
import tarfile


def tar_of(*members):
    """A tar made by the standard library: (name, content) pairs, names ending in / are directories."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()
