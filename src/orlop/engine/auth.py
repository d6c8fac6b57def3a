"""Registry credentials as Docker's clients send them.

Spec: Docker Engine API, AuthConfig and "Authentication".
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from orlop.base.errors import InvalidInput
from orlop.oci.reference import DEFAULT_DOMAIN
from orlop.registry.auth import Credentials
from orlop.wire.gojson import field

__all__ = ["AuthConfig", "find_auth"]

_HUB_HOSTS = ("index.docker.io", "docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """What `docker login` stored for one registry. Never shown: repr is the user name and the address."""

    username: str = field("username", default="")
    password: str = dataclasses.field(default="", repr=False, metadata={"json": "password"})
    auth: str = dataclasses.field(default="", repr=False, metadata={"json": "auth"})
    email: str = dataclasses.field(default="", repr=False, metadata={"json": "email"})
    serveraddress: str = field("serveraddress", default="")
    identitytoken: str = dataclasses.field(default="", repr=False, metadata={"json": "identitytoken"})
    registrytoken: str = dataclasses.field(default="", repr=False, metadata={"json": "registrytoken"})

    def credentials(self) -> Credentials:
        """For the registry client; `auth` (base64 of user:password) fills in what is missing.

        Raises:
            InvalidInput: `auth` is not that.
        """
        username, password = self.username, self.password
        if self.auth and not username:
            try:
                pair = base64.b64decode(self.auth, validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                raise InvalidInput(
                    "invalid auth configuration: auth is not base64 of user:password"
                ) from None
            username, _, password = pair.partition(":")
        return Credentials(username, password, self.identitytoken, self.registrytoken)


def find_auth(auth: Mapping[str, AuthConfig], domain: str) -> AuthConfig | None:
    """Credentials by host; clients name registries as `host`, `https://host` or `https://host/v1/`."""
    hosts = _HUB_HOSTS if domain == DEFAULT_DOMAIN else (domain,)
    for name, found in auth.items():
        host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
        if host in hosts:
            return found
    return None
