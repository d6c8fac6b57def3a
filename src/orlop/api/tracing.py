"""The span of a request: from its head to the end of its answer, streams included."""

from __future__ import annotations

from collections.abc import AsyncIterator

from orlop.aio.http_messages import AnyResponse, Hijack, ServerRequest, StreamResponse
from orlop.base import trace

__all__ = ["begin_span", "end_span"]


def begin_span(incoming: ServerRequest) -> trace.Span:
    """Under the client's span, when it tells one. Only while `trace.is_on()`."""
    span = trace.begin(incoming.method, incoming.headers.get("traceparent", ""))
    span.attributes = {
        "http.request.method": incoming.method,
        "url.path": incoming.target.partition("?")[0],
        "user_agent.original": incoming.headers.get("user-agent", ""),
    }
    return span


def end_span(span: trace.Span, response: AnyResponse, operation: str, status: int) -> None:
    """End it now, or when the stream ends."""
    span.name = operation if operation != "?" else span.name
    span.attributes["http.response.status_code"] = status
    if status >= 500:
        span.error = f"status {status}"
    if isinstance(response, StreamResponse):
        response.chunks = _until_end(span, response.chunks)
    elif isinstance(response, Hijack):
        span.attributes["http.hijacked"] = True
        span.end()
    else:
        span.end()


async def _until_end(span: trace.Span, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as error:
        span.end(error)
        raise
    finally:
        try:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()
        finally:
            span.end()
