"""Help for tests of trees: contexts from dictionaries, layers back to dictionaries."""

import io
import os
import tarfile
import tempfile

from orlop.build import graph as g
from orlop.build.contexttree import ContextTree
from orlop.build.fileops import apply_file_op
from orlop.build.layerdraft import empty_tree
from orlop.build.layerwrite import write_layer
from orlop.build.unpacking import ArchiveUnpacker
from orlop.wire.tar import scan

DIRECTORY = None


def link(target):
    return ("link", target)


def hardlink(target):
    return ("hardlink", target)


def node(type_, **fields):
    return ("node", type_, fields)


def made_tar(files, how="w", **common):
    """A tar: names to bytes, DIRECTORY, link(..), hardlink(..) or node(..)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=how, format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = 1_000_000, 0o644
            for key, value in common.items():
                setattr(entry, key, value)
            data = None
            if content is DIRECTORY:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, bytes):
                entry.size, data = len(content), io.BytesIO(content)
            elif content[0] == "node":
                entry.type = content[1]
                for key, value in content[2].items():
                    setattr(entry, key, value)
            else:
                entry.type = tarfile.SYMTYPE if content[0] == "link" else tarfile.LNKTYPE
                entry.linkname = content[1]
            archive.addfile(entry, data)
    return buffer.getvalue()


def context(files, **common):
    data = made_tar(files, **common)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - `forget_trees` closes it
    _kept.append(file)
    file.write(data)
    file.flush()
    return ContextTree.read(file.fileno(), scan(data))


_kept = []


def forget_trees():
    for file in _kept:
        file.close()
    _kept.clear()


def copy(source, destination, **fields):
    """A COPY as the frontend makes it."""
    defaults = {
        "follows_links": True,
        "copies_contents": True,
        "creates_path": True,
        "has_wildcard": True,
        "may_match_nothing": True,
    }
    return g.CopyAction(source, destination, **(defaults | fields))


def applied(actions, source=None, base=None):
    """The layer of a chain of actions, as tar entries by name."""
    chain = []
    for number, action in enumerate(actions):
        before = 0 if base is not None else g.SCRATCH
        if number:
            before = (1 if source is not None else 0) + number - 1
        secondary = 0 if source is not None and isinstance(action, g.CopyAction) else g.SCRATCH
        chain.append(g.FileAction(action, before, secondary, 0))
    inputs = [] if source is None else [source]
    with tempfile.TemporaryFile() as scratch, tempfile.TemporaryFile() as out:
        unpack = ArchiveUnpacker(scratch.fileno())
        draft = apply_file_op(g.FileOp(tuple(chain)), inputs, base or empty_tree(), unpack)
        write_layer(draft, out.fileno(), 0)
        data = os.pread(out.fileno(), 1 << 24, 0)
    return read_layer(data)


def read_layer(data):
    """Names to (type, mode, uid, gid, mtime, content or target)."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            body = archive.extractfile(entry).read() if entry.isreg() else entry.linkname
            found[entry.name] = Found(entry, body)
    return found


class Found:
    def __init__(self, entry, body):
        self.kind = {
            "0": "file",
            "1": "hardlink",
            "2": "link",
            "5": "dir",
            "6": "fifo",
            "3": "char",
            "4": "block",
        }[entry.type.decode()]
        self.mode, self.uid, self.gid, self.mtime = entry.mode, entry.uid, entry.gid, entry.mtime
        self.body = body

    def __repr__(self):
        return f"{self.kind} {self.mode:o} {self.uid}:{self.gid} {self.body!r}"
