import json

import pytest
from frontend import LAYER, lowered

from orlop.base.errors import InvalidInput
from orlop.build.export import config_bytes, parse_epoch
from orlop.build.results import BuiltLayer

SECOND = 1_000_000_000


def exported(text, times, **options):
    draft = lowered(text, **options).draft
    base = [BuiltLayer(LAYER)] if draft.base else []
    new = [BuiltLayer(f"sha256:{number:064x}", time) for number, time in enumerate(times)]
    return json.loads(config_bytes(draft, [*base, *new], options.pop("epoch_ns", None)))


def test_a_scratch_image_says_what_it_is():
    config = exported("FROM scratch\nLABEL a=b", [])

    assert config["os"] == "linux"
    assert config["config"]["Labels"] == {"a": "b"}
    assert config["rootfs"] == {"type": "layers", "diff_ids": []}
    assert "created" not in config
    assert config["history"] == [
        {"created_by": "LABEL a=b", "comment": "buildkit.dockerfile.v0", "empty_layer": True}
    ]


def test_unknown_keys_of_the_base_survive():
    assert exported("FROM x\nENV A=b", [])["x.unknown"] == {"kept": True}


def test_times_come_from_the_next_new_layer_and_at_the_end_from_the_last():
    config = exported("FROM x\nENV A=1\nRUN a\nENV B=2\nRUN b\nENV C=3", [10 * SECOND, 20 * SECOND])

    created = [entry["created"][17:19] for entry in config["history"][1:]]

    assert created == ["10", "10", "20", "20", "20"]
    assert config["created"] == "1970-01-01T00:00:20Z"
    assert [entry.get("empty_layer", False) for entry in config["history"][1:]] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_without_new_layers_the_base_says_when():
    config = exported("FROM x\nLABEL a=b", [])

    assert config["created"] == "2020-01-02T03:04:05Z"


def test_equal_layers_give_equal_bytes():
    draft = lowered("FROM x\nRUN a\nCMD b").draft
    layers = [BuiltLayer(LAYER), BuiltLayer("sha256:" + "5" * 64, 7)]

    assert config_bytes(draft, layers) == config_bytes(draft, layers)


def test_nothing_is_later_than_the_epoch():
    draft = lowered("FROM x\nRUN a").draft
    layers = [BuiltLayer(LAYER), BuiltLayer("sha256:" + "5" * 64, 10**19)]

    config = json.loads(config_bytes(draft, layers, 5 * SECOND))

    assert config["created"] == config["history"][-1]["created"] == "1970-01-01T00:00:05Z"


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 13, "999999999999"])
def test_an_epoch_is_a_number_of_seconds(text):
    with pytest.raises(InvalidInput, match="SOURCE_DATE_EPOCH"):
        parse_epoch(text)


def test_an_epoch_is_read():
    assert (parse_epoch(""), parse_epoch("12")) == (None, 12 * SECOND)


def test_maintainer_is_the_author():
    assert exported("FROM x\nMAINTAINER me", [])["author"] == "me"
