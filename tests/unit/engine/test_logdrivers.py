import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.logdrivers import DRIVERS, attributes, check_log, is_readable, log_spec, render_tag
from orlop.engine.logservices import service_address
from orlop.engine.model import Record
from orlop.engine.requests import ContainerConfig, HostConfig, LogConfig, NetworkingConfig


def record_of(kind="json-file", options=None, **config):
    return Record(
        id="c" * 64,
        name="web",
        created_ns=1,
        image_id="sha256:" + "a" * 64,
        image_name="busybox:latest",
        layers=(),
        platform="linux",
        path="sh",
        args=("-c", "true"),
        config=ContainerConfig(**config),
        host=HostConfig(log_config=LogConfig(kind, options or {})),
        networking=NetworkingConfig(),
        mounts=(),
    )


@pytest.mark.parametrize(
    ("options", "size", "files"),
    [
        ({}, 20 << 20, 5),
        ({"max-size": "10m", "max-file": "3"}, 10 << 20, 3),
        ({"max-size": "-1"}, 20 << 20, 5),
    ],
)
def test_logs_are_bounded(options, size, files):
    spec = log_spec(record_of("json-file", options), "/log")

    assert (spec.max_size_bytes, spec.max_files) == (size, files)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        ("json-file", {"max-size": "big"}, "invalid size: 'big'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("local", {"max-file": "x"}, "max-file cannot be less than 1"),
        ("json-file", {"compress": "true", "max-file": "1"}, "compress cannot be true when"),
        ("json-file", {"compress": "maybe"}, "strconv.ParseBool"),
        ("json-file", {"x": "y"}, "unknown log opt 'x' for json-file log driver"),
        ("local", {"labels": "y"}, "unknown log opt 'labels' for log driver local"),
        ("journald", {"max-size": "1m"}, "unknown log opt 'max-size' for journald log driver"),
        ("syslog", {"fluentd-async": "1"}, "unknown log opt 'fluentd-async' for syslog log driver"),
        ("splunk", {}, "logger: no log driver named 'splunk' is registered"),
        ("json-file", {"mode": "fast"}, "logger: logging mode not supported: fast"),
        ("json-file", {"max-buffer-size": "1m"}, "max-buffer-size option is only supported with"),
        ("json-file", {"env-regex": "("}, "invalid env-regex"),
        ("json-file", {"tag": "{{.Secret}}"}, "there is no field 'Secret'"),
        ("json-file", {"tag": "{{if .ID}}x{{end}}"}, "invalid log tag"),
        ("syslog", {"syslog-facility": "loud"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "00019999"}, "invalid syslog facility"),
        ("syslog", {"syslog-facility": "24"}, "invalid syslog facility"),
        ("journald", {"journald-address": "nonsense"}, "should be in form proto://address"),
        ("journald", {"journald-address": "tcp://h:1"}, "unsupported scheme: tcp"),
        ("fluentd", {"fluentd-write-timeout": "soon"}, "time: invalid duration"),
        ("syslog", {"syslog-format": "x"}, "Invalid syslog format"),
        ("syslog", {"syslog-address": "host"}, "syslog-address should be in form proto://address, got host"),
        ("syslog", {"syslog-address": "tcp+tls://h"}, "unsupported scheme: tcp+tls"),
        ("syslog", {"syslog-address": "udp://h:99999"}, "invalid syslog-address"),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "udp://h", "gelf-compression-type": "x"}, "gelf-compression-type"),
        ("fluentd", {"fluentd-retry-wait": "soon"}, "time: invalid duration"),
        ("fluentd", {"fluentd-max-retries": "-1"}, "must be a positive integer"),
    ],
)
def test_what_could_never_start_is_refused_in_dockers_words(kind, options, text):
    with pytest.raises(InvalidInput) as caught:
        check_log(LogConfig(kind, options))

    assert text in str(caught.value)


@pytest.mark.parametrize("kind", DRIVERS)
def test_what_every_driver_takes(kind):
    options = {"mode": "non-blocking", "max-buffer-size": "4m", "cache-disabled": "false"}
    if kind == "gelf":
        options["gelf-address"] = "udp://127.0.0.1"

    check_log(LogConfig(kind, options))


def test_options_of_none_are_not_looked_at():
    check_log(LogConfig("none", {"anything": "goes"}))


def test_the_copy_of_a_service_driver_can_be_left_out():
    assert is_readable(LogConfig("syslog", {}))
    assert not is_readable(LogConfig("syslog", {"cache-disabled": "true"}))
    assert not is_readable(LogConfig("none"))
    assert is_readable(LogConfig("json-file", {"cache-disabled": "true"}))


def test_attributes_are_the_labels_and_variables_that_were_selected():
    record = record_of(
        options={"labels": "app,missing", "env-regex": "^DB_", "env": "A", "tag": "{{.Name}}/{{.ID}}"},
        labels={"app": "shop", "other": "x"},
        env=("A=1", "DB_HOST=h", "B=2", "NOVALUE"),
    )

    assert attributes(record) == {"app": "shop", "A": "1", "DB_HOST": "h", "tag": "web/" + "c" * 12}


def test_a_service_is_told_who_speaks():
    options = {"syslog-address": "tcp://logs.example:601", "tag": "{{.ImageName}}", "labels": "app"}
    service = log_spec(record_of("syslog", options, labels={"app": "shop"}), "/log").service

    assert service is not None
    assert (service.address, service.tag) == ("tcp://logs.example:601", "busybox:latest")
    assert (service.container_name, service.attributes) == ("web", {"app": "shop"})
    assert service.settings == {"facility": 3, "format": ""}


def test_a_tag_is_the_short_id_unless_told_otherwise():
    service = log_spec(record_of("journald"), "/log").service

    assert service is not None
    assert service.tag == "c" * 12
    assert render_tag("a{{ .X }}b", {"X": "1"}) == "a1b"


@pytest.mark.parametrize(
    ("kind", "given", "address"),
    [
        ("syslog", "udp://h", "udp://h:514"),
        ("syslog", "tcp://[::1]:99", "tcp://[::1]:99"),
        ("syslog", "unixgram:///run/x", "unixgram:///run/x"),
        ("syslog", "", ""),
        ("fluentd", "h:1", "tcp://h:1"),
        ("fluentd", "h", "tcp://h:24224"),
        ("fluentd", "", "tcp://127.0.0.1:24224"),
        ("gelf", "udp://h", "udp://h:12201"),
    ],
)
def test_addresses_are_completed(kind, given, address):
    assert service_address(kind, {f"{kind}-address": given}) == address
