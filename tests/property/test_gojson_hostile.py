"""No JSON makes a request type fail otherwise than with a clear error; what was decoded can be encoded."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.engine import requests
from orlop.engine.auth import AuthConfig
from orlop.wire import gojson
from orlop.wire.gofields import key_of

CLASSES = [
    value
    for _, value in inspect.getmembers(requests, inspect.isclass)
    if dataclasses.is_dataclass(value) and value.__module__ == requests.__name__
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("cls", [*CLASSES, AuthConfig], ids=lambda cls: cls.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_is_decoded_or_refused(cls, data):
    keys = [key_of(field) for field in dataclasses.fields(cls)]
    document = data.draw(st.dictionaries(st.sampled_from(keys) | st.text(max_size=3), VALUES, max_size=4))

    try:
        value = gojson.decode(cls, json.dumps(document).encode())
    except gojson.InvalidJson:
        return  # refused with a clear error: any other exception fails this test

    once = gojson.encode(value)
    assert gojson.encode(gojson.decode(cls, once)) == once
