"""Tracing, when OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT) is in the engine's environment.

The variables are those of OpenTelemetry, as dockerd reads them; the protocol is OTLP over HTTP with JSON.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote

from orlop.base import log, trace
from orlop.base.errors import InvalidInput

if TYPE_CHECKING:
    from orlop.aio.scope import Background
    from orlop.aio.span_export import SpanExporter, SpanTarget

__all__ = ["find_target", "start_tracing"]

_PREFIX = "OTEL_EXPORTER_OTLP_"


def start_tracing(environ: Mapping[str, str], background: Background) -> SpanExporter | None:
    """Begin to send spans; None, and nothing is imported, when nobody asked for it.

    The caller closes the exporter when no more spans come.
    """
    if not _asked(environ):
        return None
    try:
        target = find_target(environ)
    except InvalidInput as error:
        log.warning("no traces are sent", error=error)  # an odd variable is no reason not to run
        return None
    from orlop.aio.span_export import SpanExporter

    exporter = SpanExporter(target)
    background.start(exporter.run(), name="spans")
    trace.set_sink(exporter.offer)
    log.info("traces are sent", collector=str(target.url.origin))
    return exporter


def _asked(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    return bool(environ.get(f"{_PREFIX}TRACES_ENDPOINT") or environ.get(f"{_PREFIX}ENDPOINT"))


def find_target(environ: Mapping[str, str]) -> SpanTarget:
    """What the variables say.

    Raises:
        InvalidInput: an address that is none, or a protocol that is not spoken here.
    """
    from orlop.aio.http_client import Dial
    from orlop.aio.span_export import SpanTarget
    from orlop.aio.url import parse_url
    from orlop.base.version import VERSION

    protocol = environ.get(f"{_PREFIX}TRACES_PROTOCOL") or environ.get(f"{_PREFIX}PROTOCOL", "")
    if protocol == "grpc":
        raise InvalidInput(
            "OTLP over gRPC is not spoken here",
            hint="give the collector's HTTP address (port 4318) and http/json as the protocol",
        )
    endpoint = environ.get(f"{_PREFIX}TRACES_ENDPOINT", "")
    if not endpoint:  # the general one is a base, spec: OTLP exporter, "Endpoint URLs for OTLP/HTTP"
        endpoint = f"{environ[f'{_PREFIX}ENDPOINT'].rstrip('/')}/v1/traces"
    url = parse_url(endpoint)
    tls = None
    if url.origin.scheme == "https":
        import ssl

        tls = ssl.create_default_context()
    resource: dict[str, object] = {
        "service.name": environ.get("OTEL_SERVICE_NAME") or "orlopd",
        "service.version": VERSION,
        "host.name": os.uname().nodename,
        "process.pid": os.getpid(),
    }
    return SpanTarget(url, resource, VERSION, _headers(environ), Dial(tls))


def _headers(environ: Mapping[str, str]) -> dict[str, str]:
    """`name=value,name=value`, values with % escapes; secrets, so they are never logged."""
    text = environ.get(f"{_PREFIX}TRACES_HEADERS") or environ.get(f"{_PREFIX}HEADERS", "")
    found = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip():
            found[name.strip()] = unquote(value.strip())
    return found
