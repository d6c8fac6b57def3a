"""What a verb is given: the client, the terminal, the environment; made once per call."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from orlop.client.autostart import connect_or_start
from orlop.client.client import Client
from orlop.client.endpoint import Endpoint, resolve_endpoint

__all__ = ["Context", "is_terminal", "run_helper", "run_helper_verb"]


@dataclass
class Context:
    """One call of the CLI. `client` connects (and starts the engine) at first use."""

    environ: Mapping[str, str]
    host: str = ""
    docker_context: str = ""
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)
    _client: Client | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where the engine is."""
        return resolve_endpoint(self.environ, host=self.host, context=self.docker_context)

    @property
    def client(self) -> Client:
        """The engine, running."""
        if self._client is None:
            endpoint = self.endpoint
            connect_or_start(endpoint, self.environ)
            self._client = Client(endpoint)
        return self._client

    def print(self, text: str, *, end: str = "\n") -> None:
        """A line for people or scripts on standard output."""
        self.out.write(text + end)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        self.err.write(text + "\n")

    def auth_header(self, reference: str) -> dict[str, str]:
        """Credentials of the docker config for the registry that a reference names."""
        from orlop.client.credentials import auth_config, auth_header, load_config
        from orlop.oci.reference import parse_reference

        domain = parse_reference(reference).domain
        return auth_header(auth_config(load_config(self.environ), domain, run_helper))

    def config_header(self) -> dict[str, str]:
        """All credentials of the docker config, for builds."""
        from orlop.client.credentials import config_header, load_config

        return config_header(load_config(self.environ), run_helper)

    def config_header_of(self, *references: str) -> dict[str, str]:
        """The credentials of the registries that these references name, and no others."""
        from orlop.client.credentials import auth_config, encoded_header, load_config, server_key
        from orlop.oci.reference import parse_reference

        config = load_config(self.environ)
        domains = {parse_reference(reference).domain for reference in references}
        known = {server_key(one): auth_config(config, one, run_helper) for one in domains}
        return encoded_header({key: value for key, value in known.items() if value})

    def each(self, names: tuple[str, ...], work: Any) -> int:
        """Apply `work` to every name; errors are shown and the rest goes on. The exit code."""
        from orlop.base.errors import OrlopError

        code = 0
        for name in names:
            try:
                work(name)
            except OrlopError as error:
                self.warn(f"Error response from engine: {error}")
                code = 1
        return code


def run_helper(helper: str, server: str) -> str:
    """Ask a docker credential helper for a registry's secret; the answer is its JSON. Raises OSError."""
    return run_helper_verb(helper, "get", server)


def run_helper_verb(helper: str, verb: str, text: str) -> str:
    """Run a docker credential helper: `get`, `store` or `erase`, its input and output as text.

    Raises:
        OSError: there is no such helper, or it failed.
    """
    import subprocess  # noqa: TID251 - the helper protocol is a program with a pipe

    if not helper.replace("-", "").replace("_", "").isalnum():
        raise OSError(f"invalid credential helper {helper!r}")
    done = subprocess.run(
        [f"docker-credential-{helper}", verb], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise OSError(done.stdout.strip() or done.stderr.strip())
    return done.stdout


def is_terminal(stream: TextIO) -> bool:
    """True for a terminal; a closed stream is none."""
    try:
        return os.isatty(stream.fileno())
    except (OSError, ValueError):
        return False
