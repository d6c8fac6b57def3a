"""What a registry server is told to be: flags and a JSON file become one frozen value.

Pure. Schema of the file: docs/guide/registry.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orlop.base.errors import InvalidInput
from orlop.oci.strictjson import Fields, decode
from orlop.registryd.access.policy import OPEN, RULE_KEYS, Policy, parse_policy

__all__ = ["RegistrySettings", "Upstream", "parse_settings_file"]

_KEYS = ("upstreams", "policy")
_UPSTREAM_KEYS = ("prefix", "registry", "ttl_s", "username", "password", "insecure")
_MAX_UPSTREAMS = 100


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry whose content is cached under names that begin with `prefix`; "" is every other name."""

    prefix: str
    registry: str
    ttl_s: float = 300.0
    username: str = ""
    password: str = field(default="", repr=False)
    is_insecure: bool = False


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """What can be chosen."""

    is_read_only: bool = False
    allows_delete: bool = False
    allows_sparse: bool = False
    chunk_min_bytes: int = 0
    max_blob_bytes: int = 0  # 0 is no limit
    body_idle_s: float = 60.0
    auth: str = "none"  # none, basic or token
    service: str = "orlop-registry"
    public_url: str = ""
    policy: Policy = OPEN
    upstreams: tuple[Upstream, ...] = ()

    def upstream_of(self, name: str) -> tuple[Upstream, str] | None:
        """Whose content a repository caches, and its name there; the longest prefix wins."""
        for upstream in sorted(self.upstreams, key=lambda entry: -len(entry.prefix)):
            if not upstream.prefix:
                return upstream, name
            if name.startswith(upstream.prefix + "/"):
                return upstream, name[len(upstream.prefix) + 1 :]
        return None


def parse_settings_file(data: bytes) -> Mapping[str, object]:
    """The parts of the settings that are in a file: `upstreams` and `policy`.

    Raises:
        InvalidInput: it breaks its schema; the place is named.
    """
    document = decode(data, "registry configuration")
    fields = Fields(document, "registry configuration", _KEYS)
    _refuse_unknown(document)
    found: dict[str, object] = {}
    if "upstreams" in fields:
        entries = fields.children("upstreams", _MAX_UPSTREAMS, _UPSTREAM_KEYS)
        found["upstreams"] = tuple(_upstream(entry) for entry in entries)
    if (policy := fields.child("policy")) is not None:
        found["policy"] = parse_policy(policy)
    return found


def _upstream(fields: Fields) -> Upstream:
    registry = fields.text("registry")
    if not registry:
        raise InvalidInput(f"{fields.where}: registry is missing")
    return Upstream(
        prefix=fields.text("prefix").strip("/"),
        registry=registry,
        ttl_s=float(fields.integer("ttl_s", 300)),
        username=fields.text("username"),
        password=fields.text("password"),
        is_insecure=fields.flag("insecure"),
    )


def _refuse_unknown(document: Mapping[str, Any]) -> None:
    """A misspelt key of a policy must not pass for a rule that is not there."""
    policy = document.get("policy")
    places: list[tuple[Any, tuple[str, ...]]] = [(document, _KEYS), (policy, ("rules", "groups"))]
    lists: tuple[tuple[str, tuple[str, ...], object], ...] = (
        ("upstreams", _UPSTREAM_KEYS, document),
        ("rules", RULE_KEYS, policy),
    )
    for key, known, owner in lists:
        entries = owner.get(key) if isinstance(owner, dict) else None
        places += [(entry, known) for entry in entries] if isinstance(entries, list) else []
    for value, known in places:
        unknown = sorted(set(value) - set(known)) if isinstance(value, dict) else []
        if unknown:
            raise InvalidInput(f"registry configuration: unknown key {unknown[0][:80]!r}")
