"""Go's JSON habits, both ways."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

import pytest

from orlop.engine.requests import ContainerConfig, HostConfig
from orlop.wire import gojson
from orlop.wire.gojson import InvalidJson, decode, encode, field, to_plain


class Propagation(enum.Enum):
    PRIVATE = "rprivate"
    SHARED = "rshared"


@dataclass(frozen=True, slots=True)
class Port:
    private_port: int = 0
    public_port: int = field(omit_empty=True, default=0)
    type: str = "tcp"


@dataclass(frozen=True, slots=True)
class Box:
    id: str = field(name="Id")
    image: str = ""
    names: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    binds: tuple[str, ...] | None = None
    exposed: frozenset[str] = frozenset()
    nano_cpus: int = 0
    swappiness: int | None = None
    load: float = 0.0
    tty: bool = False
    propagation: Propagation = Propagation.PRIVATE
    raw: bytes = b""
    cmd: tuple[str, ...] = field(or_string=True, default=())
    memory: int = field(or_string=True, default=0)
    extra: object = None
    first: Port | None = None
    networks: dict[str, Port] = field(default_factory=dict)


def test_encode_writes_pascal_keys_in_field_order_and_a_final_newline() -> None:
    assert encode(Port(80)) == b'{"PrivatePort":80,"Type":"tcp"}\n'


def test_encode_keeps_html_and_sorts_maps() -> None:
    box = Box("x", labels={"b": "<&>", "a": "\u2028"})

    text = encode(box).decode()

    assert '"Labels":{"a":"\\u2028","b":"<&>"}' in text


def test_encode_tells_null_from_empty() -> None:
    assert to_plain(Box("x"))["Binds"] is None
    assert to_plain(Box("x", binds=()))["Binds"] == ()
    assert b'"Binds":[]' in encode(Box("x", binds=()))


def test_whole_floats_are_written_as_integers() -> None:
    assert b'"Load":2,' in encode(Box("x", load=2.0))
    assert b'"Load":0.5,' in encode(Box("x", load=0.5))


def test_round_trip_of_every_kind_of_field() -> None:
    box = Box(
        "x", "img", ("/a",), (Port(1, 2),), {"k": "v"}, ("/a:/b",), frozenset({"80/tcp"}), 5, 0, 1.5, True,
        Propagation.SHARED, b"\x00\xff", ("sh",), 7, {"any": [1]}, Port(3), {"bridge": Port(4)},
    )  # fmt: skip

    assert decode(Box, encode(box)) == box


def test_keys_match_in_any_case_and_unknown_ones_are_ignored() -> None:
    assert decode(Box, b'{"ID":"1","iMaGe":"i","Nonsense":{"a":[1]}}') == Box("1", "i")


def test_null_and_missing_give_the_zero_value() -> None:
    box = decode(Box, b'{"Names":null,"Labels":null,"Image":null}')

    assert box == Box("")


def test_strings_stand_in_where_docker_takes_them() -> None:
    box = decode(Box, b'{"Cmd":"echo hi","Memory":"-1"}')

    assert (box.cmd, box.memory) == (("echo hi",), -1)
    assert decode(Box, b'{"Cmd":"","Memory":""}') == Box("")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'{"Image":1}', "json: cannot unmarshal number into Go struct field Box.Image of type string"),
        (b'{"Ports":[{"PrivatePort":"a"}]}', "json: cannot unmarshal string into Go struct field Box.Ports.PrivatePort of type int64"),
        (b'{"NanoCpus":1.0}', "json: cannot unmarshal number 1.0 into Go struct field Box.NanoCpus of type int64"),
        (b'{"NanoCpus":9223372036854775808}', "number 9223372036854775808 into"),
        (b'{"NanoCpus":true}', "cannot unmarshal bool"),
        (b'{"Names":{}}', "cannot unmarshal object into Go struct field Box.Names of type []string"),
        (b'{"Labels":[]}', "of type map[string]string"),
        (b'{"Labels":{"a":1}}', "Box.Labels of type string"),
        (b'{"Tty":"true"}', "of type bool"),
        (b'{"Load":"x"}', "of type float64"),
        (b'{"Raw":"@"}', "base64"),
        (b'{"Propagation":"x"}', "Propagation"),
        (b'{"Memory":"12x"}', "cannot unmarshal string"),
        (b'{"Memory":"\xd9\xa3"}', "cannot unmarshal string"),
        (b"[]", "json: cannot unmarshal array into Go value of type Box"),
        (b'"x"', "cannot unmarshal string into Go value"),
    ],
)  # fmt: skip
def test_wrong_types_are_named_in_gos_words(document: bytes, message: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        decode(Box, document)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [b"", b"  \n", b"{", b'{"a":1}{"b":2}', b'{"Load":NaN}', b'{"Load":-Infinity}', b'{"Load":1e999}', b"\xef\xbb\xbf{}",
     b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", b"[" * 100_000, b"1" * 5000, b"'x'"],
)  # fmt: skip
def test_what_is_not_json_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidJson):
        decode(Box, document)


def test_size_limit_is_checked_before_parsing() -> None:
    with pytest.raises(InvalidJson, match="too large"):
        decode(Box, b" " * 100, limit=99)


def test_bad_utf8_and_lone_surrogates_become_replacement_characters() -> None:
    assert decode(Box, b'{"Image":"\xff"}').image == "\ufffd"
    assert decode(Box, b'{"Image":"\\ud83d"}').image == "\ufffd"
    assert decode(Box, b'{"Image":"\\uD83D\\uDE00"}').image == "\U0001f600"


def test_many_siblings_are_not_depth() -> None:
    assert len(gojson.parse(json.dumps([[]] * 1000).encode())) == 1000


def test_recursive_classes_work() -> None:
    assert decode(Tree, b'{"Children":[{"Children":[]}]}') == Tree((Tree(),))


@dataclass(frozen=True)
class Tree:
    children: tuple[Tree, ...] = ()


def test_to_plain_of_lists_and_maps_of_values() -> None:
    assert encode([Port(1)]) == b'[{"PrivatePort":1,"Type":"tcp"}]\n'
    assert encode({"b": Port(1), "a": None}) == b'{"a":null,"b":{"PrivatePort":1,"Type":"tcp"}}\n'


def test_a_line_of_a_stream_ends_as_docker_ends_it() -> None:
    assert gojson.encode_line({"status": "ok"}) == b'{"status":"ok"}\r\n'


def test_values_without_a_json_form_are_our_bug() -> None:
    with pytest.raises(TypeError):
        encode(object())


@dataclass(frozen=True, slots=True)
class Pointers:
    count: int | None = field(omit_none=True, default=None)
    is_on: bool | None = field(omit_none=True, default=None)


def test_a_pointer_with_omitempty_is_left_out_only_when_nil():
    assert gojson.encode(Pointers()) == b"{}\n"
    assert gojson.encode(Pointers(0, is_on=False)) == b'{"Count":0,"IsOn":false}\n'


def test_a_container_that_says_nothing_of_init_and_stop_timeout_does_not_show_them():
    assert b"StopTimeout" not in gojson.encode(ContainerConfig())
    assert b'"StopTimeout":0' in gojson.encode(ContainerConfig(stop_timeout=0))
    assert b'"Init"' not in gojson.encode(HostConfig())
    assert b'"Init":false' in gojson.encode(HostConfig(init=False))
