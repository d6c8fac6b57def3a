"""`orlop registry serve`: run a registry server here, in the foreground.

The command line knows nothing of the server: it becomes `orlop-registry`, which has the same flags.
"""

from __future__ import annotations

import os
import sys

from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, Parsed, UsageError

COMMAND = Command(
    "registry serve [OPTIONS]",
    "Run a registry server in the foreground",
    (
        Flag("data-root", text="Directory of blobs and the database (default: /var/lib/orlop-registry)"),
        Flag("listen", text="Address and port (default: 127.0.0.1:5000)"),
        Flag("tls-cert", text="Certificate chain in PEM form"),
        Flag("tls-key", text="Key of the certificate"),
        Flag("config", text="JSON file with upstreams and policy"),
        Flag("htpasswd", text="Accounts: lines of user:bcrypt"),
        Flag("auth", text="How clients show who they are: basic or token (default: basic)"),
        Flag("public-url", text="How clients reach this server, for the token endpoint"),
        Flag("read-only", kind="bool", text="Serve only"),
        Flag("delete", kind="bool", text="Allow deletion of tags, manifests and blobs"),
        Flag("allow-sparse", kind="bool", text="Accept manifests that name what is not here"),
        Flag("metrics", kind="bool", text="Serve Prometheus metrics at /metrics"),
        Flag("max-blob-size", text="Largest blob in bytes (default: any)"),
        Flag("chunk-min-size", text="Smallest chunk that clients are asked to send"),
        Flag("gc-interval", text="Seconds between collections; 0 is never (default: 3600)"),
        Flag("gc-grace", text="Seconds that unused blobs are kept (default: 86400)"),
        Flag("remove-untagged", kind="bool", text="Collection takes untagged manifests, too"),
        Flag("no-access-log", kind="bool", text="Log no line for each request"),
        Flag("log-level", text="debug, info, warn or error (default: info)"),
    ),
    min_args=1,
    max_args=1,
)


def run(context: Context, parsed: Parsed) -> int:
    """Become the server."""
    if parsed.args[0] != "serve":
        raise UsageError(f"'registry {parsed.args[0]}' is not an orlop command", hint="registry serve")
    given = [flag for flag in COMMAND.flags if parsed[flag.name]]
    words = [sys.executable, "-m", "orlop.registry_daemon"]
    words += [
        f"--{flag.name}" if flag.kind == "bool" else f"--{flag.name}={parsed[flag.name]}" for flag in given
    ]
    context.out.flush()
    os.execv(sys.executable, words)  # noqa: S606 - no shell is wanted
