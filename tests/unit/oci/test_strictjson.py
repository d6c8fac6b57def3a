"""Documents that two decoders could read differently are refused."""

import pytest

from orlop.oci.strictjson import DOCUMENT_LIMIT_BYTES, Fields, MalformedDocument, decode

REFUSED = {
    "twice": b'{"a":1,"a":2}',
    "twice inside": b'{"a":{"b":1,"b":2}}',
    "by case": b'{"layers":1,"Layers":2}',
    "by exotic case": '{"\u212aey":1,"key":2}'.encode(),
    "NaN": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "huge float": b'{"a":1e999}',
    "huge integer": b'{"a":9223372036854775808}',
    "5000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "surrogate": b'{"a":"\\ud800"}',
    "surrogate key": b'{"\\udfff":1}',
    "BOM": b'\xef\xbb\xbf{"a":1}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "Latin-1": b'{"a":"\xe9"}',
    "trailing": b'{"a":1} {}',
    "comment": b'{"a":1 /* x */}',
    "list": b"[]",
    "empty": b"",
    "deep": b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
    "very deep": b'{"a":' + b"[" * 100_000,
    "large": b'{"a":"' + b"x" * DOCUMENT_LIMIT_BYTES + b'"}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_ambiguous_or_oversized_documents_are_refused(name):
    with pytest.raises(MalformedDocument):
        decode(REFUSED[name], "manifest")


def test_keys_that_are_the_users_data_may_differ_by_case():
    value = decode(b'{"config":{"Labels":{"a":"1","A":"2"}},"annotations":{"b":"","B":""}}', "config")

    assert value["config"]["Labels"] == {"a": "1", "A": "2"}


def test_escaped_pairs_and_depth_64_are_fine():
    assert decode(b'{"a":"\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}
    assert decode(b'{"a":' + b"[" * 63 + b"]" * 63 + b"}", "x")


def test_fields_name_the_place_of_a_wrong_type():
    fields = Fields(
        decode(b'{"n":1.5,"t":1,"l":{},"m":[],"f":1,"z":"a\\u0000b","nothing":null,"i":true}', "doc"), "doc"
    )

    for read in (
        lambda: fields.integer("n"),
        lambda: fields.integer("i"),
        lambda: fields.text("t"),
        lambda: fields.text("z"),
        lambda: fields.texts("l", 5),
        lambda: fields.text_map("m", 5),
        lambda: fields.flag("f"),
        lambda: fields.child("m"),
        lambda: fields.children("l", 5),
    ):
        with pytest.raises(MalformedDocument, match="doc"):
            read()
    assert fields.text("nothing", "x") == "x"
    assert fields.texts("nothing", 5) is None
    assert fields.child("nothing") is None


def test_a_known_key_in_the_wrong_case_is_refused():
    with pytest.raises(MalformedDocument, match="wrong case"):
        Fields({"Layers": []}, "manifest", ("layers",))


def test_lists_have_limits():
    fields = Fields({"l": ["a"] * 6, "m": dict.fromkeys("abcdef", "x")}, "doc")

    with pytest.raises(MalformedDocument):
        fields.texts("l", 5)
    with pytest.raises(MalformedDocument):
        fields.text_map("m", 5)
