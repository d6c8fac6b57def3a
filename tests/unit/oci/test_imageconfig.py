"""Image configs: parsing, refusals, and derived configs that lose nothing."""

import json

import pytest

from orlop.base.errors import OrlopError
from orlop.oci.imageconfig import (
    Healthcheck,
    HistoryEntry,
    ImageConfig,
    RunConfig,
    derive_config,
    parse_image_config,
)
from orlop.oci.platform import Platform

LAYER = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
DOCUMENT = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2024-01-02T03:04:05.6Z",
    "author": "me",
    "config": {
        "Hostname": "",
        "User": "1000:1000",
        "ExposedPorts": {"80/tcp": {}},
        "Env": ["A=b"],
        "Entrypoint": ["/e"],
        "Cmd": None,
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
        "Labels": {"l": "v", "L": "w"},
        "StopSignal": "SIGINT",
        "Shell": ["/bin/sh"],
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "Retries": 2},
        "OnBuild": ["RUN x"],
        "ArgsEscaped": True,
        "Future": {"kept": 1},
    },
    "rootfs": {"type": "layers", "diff_ids": [LAYER]},
    "history": [
        {"created_by": "a"},
        {"created_by": "b", "empty_layer": True, "created": "2024-01-02T03:04:05Z"},
    ],
    "moby.buildkit": {"x": [1, 2]},
    "container": "abc",
}


def encode(**changes):
    document = DOCUMENT | changes
    return json.dumps({key: value for key, value in document.items() if value is not ...}).encode()


def test_every_field_is_read():
    config = parse_image_config(encode())

    assert config.platform == Platform("linux", "amd64")
    assert config.created_ns == 1704164645_600000000
    assert config.diff_ids == (LAYER,)
    assert [entry.empty_layer for entry in config.history] == [False, True]
    assert config.run == RunConfig(
        user="1000:1000",
        exposed_ports=("80/tcp",),
        env=("A=b",),
        entrypoint=("/e",),
        cmd=None,
        volumes=("/v",),
        working_dir="/w",
        labels={"l": "v", "L": "w"},
        stop_signal="SIGINT",
        shell=("/bin/sh",),
        healthcheck=Healthcheck(("CMD", "x"), interval_ns=5, retries=2),
        on_build=("RUN x",),
        args_escaped=True,
    )


def test_a_bare_config_is_enough():
    config = parse_image_config(b'{"rootfs":{"type":"layers"},"config":null}')

    assert config.run == RunConfig()
    assert config.created_ns is None


@pytest.mark.parametrize(
    "changes",
    [
        {"rootfs": ...},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:../x"]}},
        {"rootfs": {"type": "layers", "diff_ids": [LAYER] * 513}},
        {"rootfs": {"type": "layers", "diff_ids": []}},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": ["A=\0"]}},
        {"config": {"Env": ["A=b"] * 100_000}},
        {"config": {"User": 5}},
        {"config": {"Volumes": ["/v"]}},
        {"config": {"env": []}},
        {"config": {"Healthcheck": {"Interval": "5s"}}},
        {"created": "yesterday"},
        {"created": 5},
        {"history": {}},
        {"history": [{}] * 5000},
    ],
)
def test_hostile_configs_are_refused(changes):
    with pytest.raises(OrlopError):
        parse_image_config(encode(**changes))


def test_times_of_year_one_and_before_the_epoch_survive():
    for text in ("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z"):
        assert parse_image_config(encode(created=text)).created_ns < 0


def test_a_derived_config_keeps_what_it_does_not_know():
    base = parse_image_config(encode())

    raw = derive_config(
        base,
        run=RunConfig(env=("A=c",), cmd=()),
        history=HistoryEntry(created_ns=1_000_000_000, created_by="RUN x"),
        layer=OTHER,
    )
    document = json.loads(raw)

    assert document["moby.buildkit"] == {"x": [1, 2]}
    assert "container" not in document
    assert document["config"] == {"Hostname": "", "Env": ["A=c"], "Cmd": [], "Future": {"kept": 1}}
    assert document["rootfs"]["diff_ids"] == [LAYER, OTHER]
    assert len(document["history"]) == 3
    assert document["author"] == "me"
    assert document["created"] == "1970-01-01T00:00:01Z"


def test_deriving_is_deterministic_and_parses_back():
    arguments = {
        "run": parse_image_config(encode()).run,
        "history": [HistoryEntry(5, "a"), HistoryEntry(6, "b", empty_layer=True)],
        "layer": LAYER,
        "platform": Platform("linux", "arm", "v7"),
        "author": "you",
    }

    raw = derive_config(None, **arguments)
    parsed = parse_image_config(raw)

    assert raw == derive_config(None, **arguments)
    assert isinstance(parsed, ImageConfig)
    assert parsed.run == arguments["run"]
    assert parsed.platform == arguments["platform"]
    assert parsed.history == tuple(arguments["history"])
    assert (parsed.created_ns, parsed.author) == (6, "you")
