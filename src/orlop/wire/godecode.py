"""The reading half of `orlop.wire.gojson`: documents to values, with Go's rules and words.

Hostile input is the normal case: size, depth, number range and types are checked here, so that
what comes out fits the annotations.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from orlop.base.errors import InvalidInput
from orlop.wire.gofields import bare_type, is_homogeneous, key_of

__all__ = ["InvalidJson", "decode", "parse"]

MAX_BYTES = 16 << 20
MAX_DEPTH = 128
_INT64 = 1 << 63

T = TypeVar("T")
Decoder = Callable[[Any], Any]


class InvalidJson(InvalidInput):
    """The document is not JSON, too large or too deep, or a value has the wrong type."""

    code = "invalid-json"


class _Mismatch(Exception):
    """A value of the wrong JSON type; struct decoders add the path on its way up."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(found, wanted)
        self.found = found
        self.wanted = wanted
        self.path: list[str] = []


def parse(data: bytes | bytearray | memoryview, *, limit: int = MAX_BYTES) -> Any:
    """Plain JSON values of a whole document, as Go reads it: bad UTF-8 becomes U+FFFD.

    Raises:
        InvalidJson: not JSON, longer than `limit` bytes, deeper than MAX_DEPTH, or holds NaN.
    """
    if len(data) > limit:
        raise InvalidJson(f"request body too large: {len(data)} bytes, limit {limit}")
    raw = bytes(data)
    text = raw.decode("utf-8", "replace")
    if not text.strip(" \t\r\n"):
        raise InvalidJson("invalid JSON: got EOF while reading request body")
    try:
        value = _json_decode(text.strip(" \t\r\n"))
    except RecursionError:
        raise InvalidJson(f"invalid JSON: nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise InvalidJson(f"invalid JSON: {error}") from None
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(value)
    if b"\\ud" in raw or b"\\uD" in raw:
        value = _replace_surrogates(value)
    return value


def decode(
    cls: type[T], data: bytes | bytearray | memoryview | Mapping[str, Any], *, limit: int = MAX_BYTES
) -> T:
    """Build a `cls` from a JSON document or from its parsed object.

    Raises:
        InvalidJson: see `parse`; or a value has the wrong type, with Go's words for it.
    """
    value = parse(data, limit=limit) if isinstance(data, bytes | bytearray | memoryview) else data
    try:
        result: T = _struct_decoder(cls)(value)
    except _Mismatch as error:
        place = f"struct field {cls.__name__}.{'.'.join(error.path)} of" if error.path else "value of"
        raise InvalidJson(
            f"json: cannot unmarshal {error.found} into Go {place} type {error.wanted}",
            field=".".join(error.path),
        ) from None
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"invalid number {name}")


def _parse_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:40]} out of range")
    return value


_json_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_parse_float).decode


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidJson(f"invalid JSON: nested deeper than {MAX_DEPTH} levels")
        containers = (item for item in level if isinstance(item, dict | list))
        level = [
            child for item in containers for child in (item.values() if isinstance(item, dict) else item)
        ]


def _replace_surrogates(value: Any) -> Any:
    """Lone surrogates cannot be encoded again; Go reads them as U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(item) for key, item in value.items()}
    return value


_struct_decoders: dict[type, Decoder] = {}


def _struct_decoder(cls: type) -> Decoder:
    decoder = _struct_decoders.get(cls)
    if decoder is not None:
        return decoder
    hints = typing.get_type_hints(cls)
    by_key: dict[str, tuple[str, str, Decoder]] = {}
    zeros: dict[str, Callable[[], Any]] = {}
    for item in dataclasses.fields(cls):
        key = key_of(item)
        by_key[key.lower()] = (item.name, key, _value_decoder(hints[item.name], item.metadata))
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            zeros[item.name] = _zero_of(hints[item.name])

    def decode_struct(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _Mismatch(_kind_of(value), cls.__name__)
        arguments: dict[str, Any] = {}
        for raw_key, raw in value.items():
            known = by_key.get(raw_key.lower())
            if known is None or raw is None:
                continue
            name, key, convert = known
            try:
                arguments[name] = convert(raw)
            except _Mismatch as error:
                error.path.insert(0, key)
                raise
        for name, zero in zeros.items():
            if name not in arguments:
                arguments[name] = zero()
        return cls(**arguments)

    _struct_decoders[cls] = decode_struct
    return decode_struct


def _late_struct_decoder(cls: type) -> Decoder:
    """Resolved at the first value, so that classes may be recursive."""

    def decode_late(value: Any) -> Any:
        return _struct_decoder(cls)(value)

    return decode_late


def _zero_of(hint: Any) -> Callable[[], Any]:
    bare, optional = bare_type(hint)
    if optional:
        return lambda: None
    origin = typing.get_origin(bare) or bare
    if origin in (str, int, float, bool, bytes, tuple, list, dict, frozenset):
        return typing.cast("Callable[[], Any]", origin)
    if dataclasses.is_dataclass(bare):
        return lambda: _struct_decoder(typing.cast("type", bare))({})
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        return lambda: next(iter(bare))
    return lambda: None


def _value_decoder(hint: Any, metadata: Mapping[str, Any] = types.MappingProxyType({})) -> Decoder:
    bare, _ = bare_type(hint)
    origin, args = typing.get_origin(bare), typing.get_args(bare)
    if origin in (tuple, list, Sequence):
        if origin is tuple and not is_homogeneous(bare):
            raise TypeError(f"{bare} has no JSON form")
        return _sequence_decoder(
            list if origin is list else tuple, args[0], or_string=metadata.get("or_string", False)
        )
    if origin in (dict, Mapping):
        return _map_decoder(args[1])
    if origin is frozenset:
        return _decode_set
    if bare is int and metadata.get("or_string"):
        return _decode_int_or_string
    simple = _SIMPLE.get(bare)
    if simple is not None:
        return simple
    if dataclasses.is_dataclass(bare):
        return _late_struct_decoder(typing.cast("type", bare))
    if isinstance(bare, type) and issubclass(bare, enum.Enum):
        return _enum_decoder(bare)
    return lambda value: value


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | str):
        return "bool" if isinstance(value, bool) else "string"
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return "number"
    if isinstance(value, int | float):
        return f"number {value!r:.40}"
    return "array" if isinstance(value, list | tuple) else "object"


def _decode_str(value: Any) -> str:
    if type(value) is not str:
        raise _Mismatch(_kind_of(value), "string")
    return value


def _decode_int(value: Any) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise _Mismatch(_kind_of(value), "int64")
    return value


def _decode_int_or_string(value: Any) -> int:
    if type(value) is str and len(value) <= 20:
        digits = value[1:] if value[:1] == "-" else value
        if value == "":
            return 0
        if digits.isascii() and digits.isdecimal():
            return _decode_int(int(value))
    return _decode_int(value)


def _decode_float(value: Any) -> float:
    if type(value) not in (int, float) or abs(value) > 1e308:
        raise _Mismatch(_kind_of(value), "float64")
    return float(value)


def _decode_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _Mismatch(_kind_of(value), "bool")
    return value


def _decode_bytes(value: Any) -> bytes:
    try:
        return b64decode(_decode_str(value), validate=True)
    except ValueError:
        raise _Mismatch("invalid base64 string", "[]uint8") from None


def _decode_set(value: Any) -> frozenset[str]:
    if not isinstance(value, Mapping):
        raise _Mismatch(_kind_of(value), "map[string]struct {}")
    return frozenset(value)


_SIMPLE: dict[Any, Decoder] = {
    str: _decode_str,
    int: _decode_int,
    float: _decode_float,
    bool: _decode_bool,
    bytes: _decode_bytes,
}
_GO_NAMES = {str: "string", int: "int64", float: "float64", bool: "bool", bytes: "[]uint8"}


def _go_name(hint: Any) -> str:
    bare, _ = bare_type(hint)
    return str(_GO_NAMES.get(bare) or getattr(bare, "__name__", bare))


def _sequence_decoder(make: Callable[[list[Any]], Any], item_hint: Any, *, or_string: bool) -> Decoder:
    convert = _value_decoder(item_hint)
    zero = _zero_of(item_hint)
    go_type = f"[]{_go_name(item_hint)}"

    def decode_sequence(value: Any) -> Any:
        if or_string and isinstance(value, str):
            return make([value] if value else [])
        if not isinstance(value, list | tuple):
            raise _Mismatch(_kind_of(value), go_type)
        return make([zero() if item is None else convert(item) for item in value])

    return decode_sequence


def _map_decoder(item_hint: Any) -> Decoder:
    convert = _value_decoder(item_hint)
    zero = _zero_of(item_hint)
    go_type = f"map[string]{_go_name(item_hint)}"

    def decode_map(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _Mismatch(_kind_of(value), go_type)
        return {key: zero() if item is None else convert(item) for key, item in value.items()}

    return decode_map


def _enum_decoder(kind: type[enum.Enum]) -> Decoder:
    def decode_enum(value: Any) -> enum.Enum:
        try:
            return kind(value)
        except ValueError:
            shown = f"{value!r:.60}" if isinstance(value, str | int) else _kind_of(value)
            raise _Mismatch(shown, kind.__name__) from None

    return decode_enum
