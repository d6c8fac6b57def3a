"""Spans on their way to a collector: their form, and that nobody waits for it."""

import asyncio
import contextlib
import io
import json

import pytest

from orlop.aio.span_export import SpanExporter, SpanTarget
from orlop.aio.url import parse_url
from orlop.base import log, trace
from orlop.wire.otlp import encode_spans


class Collector:
    """Answers every POST with a status; or never."""

    def __init__(self, status=200):
        self.status = status
        self.bodies = []
        self.heads = []
        self.writers = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def serve(self, reader, writer):
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].split("\r\n")[0])
                self.heads.append(head)
                self.bodies.append(json.loads(await reader.readexactly(length)))
                if self.status:
                    writer.write(f"HTTP/1.1 {self.status} x\r\nContent-Length: 0\r\n\r\n".encode())

    def exporter(self, **options):
        url = parse_url(f"http://127.0.0.1:{self.port}/v1/traces")
        target = SpanTarget(url, {"service.name": "orlopd"}, "1", {"Authorization": "secret"})
        return SpanExporter(target, gather_s=0.0, **options)


@pytest.fixture
def logged():
    stream = io.StringIO()
    log.set_stream(stream)
    yield stream
    import sys

    log.set_stream(sys.stderr)


def ended(name="work"):
    span = trace.Span(name, trace.SERVER, "a1" * 16, "b2" * 8, is_sampled=True)
    span.end()
    return span


def test_a_document_is_that_of_the_specification():
    span = ended("GET")
    span.attributes = {"text": "x" * 5000, "number": 1 << 60, "yes": True, "part": 0.5}
    span.error = "broken"

    (resource,) = json.loads(encode_spans([span], {"service.name": "orlopd"}, "1"))["resourceSpans"]

    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "orlopd"}}]
    (scope,) = resource["scopeSpans"]
    (shown,) = scope["spans"]
    assert (shown["traceId"], shown["parentSpanId"], len(shown["spanId"])) == ("a1" * 16, "b2" * 8, 16)
    assert (shown["kind"], shown["status"]) == (2, {"code": 2, "message": "broken"})
    assert int(shown["endTimeUnixNano"]) >= int(shown["startTimeUnixNano"]) > 0
    assert [value for item in shown["attributes"] for value in item["value"].items()] == [
        ("stringValue", "x" * 1024),
        ("intValue", str(1 << 60)),
        ("boolValue", True),
        ("doubleValue", 0.5),
    ]


def test_spans_are_sent_in_one_request_with_the_given_headers():
    async def work():
        async with Collector() as collector:
            exporter = collector.exporter()
            for number in range(3):
                exporter.offer(ended(f"n{number}"))
            task = asyncio.create_task(exporter.run())
            while not collector.bodies:
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            await exporter.aclose()
            return collector

    collector = asyncio.run(work())

    (body,) = collector.bodies
    assert [s["name"] for s in body["resourceSpans"][0]["scopeSpans"][0]["spans"]] == ["n0", "n1", "n2"]
    assert "authorization: secret" in collector.heads[0]
    assert collector.heads[0].startswith("post /v1/traces ")


def test_a_collector_that_does_not_answer_costs_the_newest_spans_and_no_time(logged):
    async def work():
        async with Collector(status=0) as collector:
            exporter = collector.exporter(queue=4)
            task = asyncio.create_task(exporter.run())
            exporter.offer(ended())
            while not collector.bodies:
                await asyncio.sleep(0.001)
            for _ in range(50):
                exporter.offer(ended())  # returns at once: there is nothing to await
            task.cancel()
            await asyncio.wait([task])
            return len(exporter._queue), exporter._lost

    assert asyncio.run(work()) == (4, 46)


@pytest.mark.parametrize("status", [404, 500])
def test_what_the_collector_refuses_is_dropped_and_said_once(logged, status):
    async def work():
        async with Collector(status) as collector:
            exporter = collector.exporter()
            for _ in range(2):
                exporter.offer(ended())
                await exporter.aclose()
            return exporter

    asyncio.run(work())

    lines = [line for line in logged.getvalue().splitlines() if "spans were dropped" in line]
    assert len(lines) == 1
    assert str(status) in lines[0]
    assert "secret" not in logged.getvalue()


def test_a_collector_that_is_not_there_is_said(logged):
    async def work():
        async with Collector() as collector:
            exporter = collector.exporter()
        await collector.server.wait_closed()
        exporter.offer(ended())
        await exporter.aclose()

    asyncio.run(work())

    assert "spans were dropped" in logged.getvalue()
