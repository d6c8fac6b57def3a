import hashlib

import pytest

from orlop.oci.digest import InvalidDigest, digest_of, new_hasher, parse_digest


def test_both_registered_algorithms_are_accepted():
    assert parse_digest("sha256:" + "0" * 64)
    assert parse_digest("sha512:" + "0" * 128)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 63,
        "md5:" + "0" * 32,
        "sha256:../../x",
        "sha256:" + "0" * 64 + "\n",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(InvalidDigest):
        parse_digest(text)


def test_digest_of_bytes():
    assert digest_of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()


def test_unknown_hash_is_refused():
    with pytest.raises(InvalidDigest):
        new_hasher("md5")
