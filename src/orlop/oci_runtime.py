"""Composition root of `orlop-runtime`, the OCI runtime command for podman, containerd and others.

The command becomes the first process of a container by fork and execve, so its interpreter is
first executed again from a read-only detached mount: whoever gets hold of `/proc/<pid>/exe` there
finds a file that cannot be written (CVE-2019-5736). Nothing here may reach asyncio, sqlite3 or ssl.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main", "main_sealed"]

# Isolated and without `site`: no file of the caller's or of a user is ever imported.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[1].split(':'); "
    "from orlop.oci_runtime import main_sealed; main_sealed(sys.argv[2:])"
)
_VERBS_THAT_ENTER = frozenset({"create", "run", "exec"})


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if _VERBS_THAT_ENTER & set(words):
        _execute_sealed(words)
    main_sealed(words)


def main_sealed(words: Sequence[str]) -> None:
    """Run the command line and end."""
    from orlop.bundle.command.main import run_command

    code = run_command(list(words), os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # nothing to tear down, and forked children must never come by here


def _execute_sealed(words: Sequence[str]) -> None:
    """Become the same command on a sealed interpreter; returns where that is not allowed."""
    from orlop.kernel import mount

    executable = os.path.realpath(sys.executable)
    try:
        sealed = mount.detach(executable)
        mount.mount_setattr(sealed, set_attributes=mount.MOUNT_ATTR_RDONLY)
        import_path = ":".join(os.path.abspath(part) for part in sys.path)
        boot = ["-I", "-S", "-X", "utf8", "-c", _BOOT, import_path, *words]
        os.execve(f"/proc/self/fd/{sealed}", [sys.executable, *boot], os.environ)  # noqa: S606
    except OSError as error:
        sys.stderr.write(
            f"warning: the interpreter is not protected by a read-only mount: {error.strerror}\n"
        )
