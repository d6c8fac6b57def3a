"""What the variables of OpenTelemetry mean to the engine."""

import subprocess
import sys

import pytest

from orlop.base import trace
from orlop.base.errors import InvalidInput
from orlop.daemon_tracing import find_target, start_tracing


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/base/"}, "http://c:4318/base/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"},
            "https://t/x",
        ),
    ],
)
def test_the_endpoint_is_a_base_and_that_of_traces_is_not(environ, url):
    target = find_target(environ)

    assert str(target.url) == url
    assert (target.dial.tls is not None) == url.startswith("https")


def test_headers_are_unescaped():
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20x, b = c ,broken,=d",
    }

    assert find_target(environ).headers == {"authorization": "Basic x", "b": "c"}


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_what_cannot_be_sent_to_is_refused(environ):
    with pytest.raises(InvalidInput):
        find_target(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "True"},
    ],
)
def test_nothing_begins_unasked(environ):
    assert start_tracing(environ, None) is None
    assert not trace.is_on()


def test_an_engine_without_a_collector_loads_nothing_for_it():
    code = (
        "import sys, orlop.daemon_wiring, orlop.api.app, orlop.daemon_tracing as tracing\n"
        "assert tracing.start_tracing({}, None) is None\n"
        "print(sorted({'orlop.aio.span_export', 'orlop.wire.otlp'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
