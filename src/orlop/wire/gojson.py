"""Frozen dataclasses to and from JSON with the habits of Go's encoding/json.

Theory of operation. A class is compiled once into a pair of closures: an encoder (attribute
tuple -> dict -> C JSON encoder) and a decoder (dict -> keyword arguments). A field's key is its
name in PascalCase (`host_config` -> `HostConfig`) unless `field(name=...)` says otherwise.

    Go habit                                   here
    keys match in any case, unknown ignored    look-up by lower-cased key
    null leaves the zero value                 null gives the field's default, or its zero value
    missing keys are zero values               the same; required keys are the engine's business
    nil slice is null, empty slice is []       None is null, () is []
    omitempty drops false, 0, "", nil, empty   field(omit_empty=True)
    the same on a pointer drops only nil       field(omit_none=True)
    map keys are sorted                        dict fields are sorted, struct fields keep their order
    map[string]struct{}                        frozenset[str]
    []byte is base64                           bytes
    1.0 is written as 1                        the same

Supported types: str, int (int64 on the wire), float, bool, bytes, enums, nested dataclasses,
`tuple[T, ...]`, `list[T]`, `dict[str, T]`, `frozenset[str]`, `T | None`, `object` and `Any` (plain
JSON values, passed through), NewTypes of these.
Spec: Go package encoding/json; Docker writes with HTML escaping off and a final newline.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import typing
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any

from orlop.wire.godecode import InvalidJson, decode, parse
from orlop.wire.gofields import bare_type, field, is_homogeneous, key_of, pascal

__all__ = ["InvalidJson", "decode", "encode", "encode_line", "field", "parse", "pascal", "to_plain"]

_EXACT_INTEGERS = 1e21  # Go writes larger floats with an exponent

Encoder = Callable[[Any], Any]
_first = itemgetter(0)


def encode(value: object) -> bytes:
    """JSON bytes of a dataclass, of plain values, or of containers of these, with a final newline."""
    return (_dump(value) + "\n").encode("utf-8", "replace")


def encode_line(value: object, end: bytes = b"\r\n") -> bytes:
    """One message of a JSON stream; Docker's progress streams end lines with CR LF, events with LF."""
    return _dump(value).encode("utf-8", "replace") + end


def to_plain(value: Any) -> Any:
    """The JSON value (dict, list, str, int, ...) that `encode` would write."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    encoder = _encoders.get(kind)
    if encoder is None:
        encoder = _encoder_for_class(kind)
    return encoder(value)


def _dump(value: object) -> str:
    text = _json_encode(to_plain(value))
    if "\u2028" in text or "\u2029" in text:  # Go escapes both in every mode
        text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return text


_json_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


def _encode_float(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < _EXACT_INTEGERS else value


def _encode_dict(value: Mapping[Any, Any]) -> dict[str, Any]:
    items = value.items() if len(value) < 2 else sorted(value.items(), key=_first)
    return {str(key): to_plain(item) for key, item in items}


def _encode_sequence(value: Sequence[Any]) -> list[Any]:
    return [to_plain(item) for item in value]


def _encode_set(value: frozenset[str]) -> dict[str, Any]:
    return {key: {} for key in sorted(value)}


def _encode_bytes(value: bytes) -> str:
    return b64encode(value).decode("ascii")


_SCALARS = frozenset({str, int, bool, type(None)})
_encoders: dict[type, Encoder] = {
    float: _encode_float,
    dict: _encode_dict,
    list: _encode_sequence,
    tuple: _encode_sequence,
    frozenset: _encode_set,
    bytes: _encode_bytes,
}


def _encoder_for_class(kind: type) -> Encoder:
    if dataclasses.is_dataclass(kind):
        encoder = _struct_encoder(kind)
    elif issubclass(kind, enum.Enum):
        encoder = attrgetter("value")
    else:
        base = next((base for base in kind.__mro__ if base in _encoders or base in _SCALARS), None)
        if base is None:
            raise TypeError(f"{kind.__name__} has no JSON form")
        encoder = _encoders.get(base, base)
    _encoders[kind] = encoder
    return encoder


def _struct_encoder(kind: type) -> Encoder:
    hints = typing.get_type_hints(kind)
    items = dataclasses.fields(kind)
    names = [item.name for item in items]
    keys = [key_of(item) for item in items]
    found = [(key_of(item), _field_encoder(hints[item.name])) for item in items]
    converters = [(key, convert) for key, convert in found if convert is not None]
    omittable = [key_of(item) for item in items if item.metadata.get("omit_empty", False)]
    nillable = [key_of(item) for item in items if item.metadata.get("omit_none", False)]
    if not names:
        return lambda _value: {}
    get_one: Callable[[Any], Any] = attrgetter(*names)
    if len(names) == 1 and not omittable and not nillable:
        convert_one = converters[0][1] if converters else _same
        return lambda value: {keys[0]: None if (item := get_one(value)) is None else convert_one(item)}
    get: Callable[[Any], tuple[Any, ...]] = get_one if len(names) > 1 else lambda value: (get_one(value),)

    def encode_struct(value: Any) -> dict[str, Any]:
        out = dict(zip(keys, get(value)))  # noqa: B905 - same length by construction, and this is the hot line
        for key in omittable:
            if not out[key]:
                del out[key]
        for key in nillable:
            if out[key] is None:
                del out[key]
        for key, convert in converters:
            if (item := out.get(key)) is not None:
                out[key] = convert(item)
        return out

    return encode_struct


def _field_encoder(hint: Any) -> Encoder | None:
    """How to encode a field of this type; None when its values are JSON already."""
    hint = bare_type(hint)[0]
    if hint in _SCALARS:
        return None
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (tuple, list) and args and bare_type(args[0])[0] in _SCALARS and is_homogeneous(hint):
        return None
    if origin is dict and len(args) == 2 and bare_type(args[1])[0] in _SCALARS:
        return lambda value: value if len(value) < 2 else dict(sorted(value.items()))
    if dataclasses.is_dataclass(hint):
        return _one_encoder(typing.cast("type", hint))
    if origin is dict and dataclasses.is_dataclass(bare_type(args[1])[0]):
        return _map_encoder(bare_type(args[1])[0])
    if origin in (tuple, list) and args and dataclasses.is_dataclass(bare_type(args[0])[0]):
        return _many_encoder(bare_type(args[0])[0])
    return to_plain


def _same(value: Any) -> Any:
    return value


def _one_encoder(kind: type) -> Encoder:
    """A nested struct; found at the first value, so that classes may be recursive."""
    encoder: Encoder | None = None

    def encode_one(value: Any) -> Any:
        nonlocal encoder
        if type(value) is not kind:
            return to_plain(value)
        if encoder is None:
            encoder = _encoder_for_class(kind)
        return encoder(value)

    return encode_one


def _map_encoder(kind: type) -> Encoder:
    convert = _one_encoder(kind)

    def encode_map(value: Mapping[str, Any]) -> dict[str, Any]:
        keys = value if len(value) < 2 else sorted(value)
        return {key: convert(value[key]) for key in keys}

    return encode_map


def _many_encoder(kind: type) -> Encoder:
    """A sequence of one class: its encoder is looked up once per sequence."""

    def encode_many(values: Sequence[Any]) -> list[Any]:
        convert = _encoders.get(kind) or _encoder_for_class(kind)
        return [convert(item) if type(item) is kind else to_plain(item) for item in values]

    return encode_many
