"""The headers that carry registry credentials.

`X-Registry-Auth` is one AuthConfig, `X-Registry-Config` a map of registry to AuthConfig (builds); both
are JSON in base64url, padded or not. Old clients send `null`, an empty value or `e30=` for nothing.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from orlop.base.errors import InvalidInput
from orlop.engine.auth import AuthConfig
from orlop.wire import gojson

__all__ = ["find_registry_auth", "registry_config"]

MAX_HEADER = 512 << 10


def find_registry_auth(headers: Mapping[str, str]) -> AuthConfig | None:
    """The credentials of `X-Registry-Auth`; None when there are none.

    Raises:
        InvalidInput: not base64url JSON of an AuthConfig.
    """
    document = _decode(headers.get("x-registry-auth", ""), "X-Registry-Auth")
    if not document:
        return None
    found = gojson.decode(AuthConfig, document)
    return None if found == AuthConfig(serveraddress=found.serveraddress) else found


def registry_config(headers: Mapping[str, str]) -> dict[str, AuthConfig]:
    """The credentials of `X-Registry-Config` by registry.

    Raises:
        InvalidInput: not base64url JSON of such a map.
    """
    document = _decode(headers.get("x-registry-config", ""), "X-Registry-Config")
    return {
        name: gojson.decode(AuthConfig, value) for name, value in document.items() if isinstance(value, dict)
    }


def _decode(text: str, header: str) -> dict[str, object]:
    if not text:
        return {}
    if len(text) > MAX_HEADER:
        raise InvalidInput(f"invalid {header} header: too long")
    try:
        # docker-py pads, Go's URL encoding may not; some clients use the standard alphabet
        raw = base64.b64decode(
            text.replace("-", "+").replace("_", "/").rstrip("=") + "=" * (-len(text.rstrip("=")) % 4),
            validate=True,
        )
    except (binascii.Error, ValueError):
        raise InvalidInput(f"invalid {header} header: invalid base64") from None
    if not raw.strip():
        return {}
    document = gojson.parse(raw)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidInput(f"invalid {header} header: must be a JSON object")
    return document
