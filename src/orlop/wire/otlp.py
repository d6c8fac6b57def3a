"""Spans as OpenTelemetry collectors take them: one ExportTraceServiceRequest in JSON.

Spec: OTLP 1.x, "JSON Protobuf Encoding": ids in hex, 64-bit numbers as strings, enums as numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from orlop.base.trace import MAX_ATTRIBUTES, Span

__all__ = ["encode_spans"]

_MAX_TEXT = 1024
_STATUS_ERROR = 2


def encode_spans(spans: Iterable[Span], resource: Mapping[str, object], version: str) -> bytes:
    """The body of `POST /v1/traces`."""
    scope = {"name": "orlop", "version": version}
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": [_span(span) for span in spans]}],
            }
        ]
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _span(span: Span) -> dict[str, object]:
    out: dict[str, object] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name[:_MAX_TEXT],
        "kind": span.kind,
        "startTimeUnixNano": str(span.started_ns),
        "endTimeUnixNano": str(span.ended_ns),
        "attributes": _attributes(span.attributes),
    }
    if span.parent_id:
        out["parentSpanId"] = span.parent_id
    if span.error:
        out["status"] = {"code": _STATUS_ERROR, "message": span.error[:_MAX_TEXT]}
    return out


def _attributes(values: Mapping[str, object]) -> list[dict[str, object]]:
    return [{"key": name, "value": _value(value)} for name, value in list(values.items())[:MAX_ATTRIBUTES]]


def _value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)[:_MAX_TEXT]}
