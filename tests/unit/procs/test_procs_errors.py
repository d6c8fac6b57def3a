import errno

import pytest

from orlop.base.errors import InvalidInput, Kind, NotFound
from orlop.procs.errors import RemoteError, decode_error, encode_error
from orlop.runtime.contract import StartFailed


def travel(error):
    import json

    return decode_error(json.loads(json.dumps(encode_error(error))))


def test_a_known_error_is_raised_as_its_own_class():
    error = travel(InvalidInput("bad name 'x'", hint="use another", name="x", weird=object()))

    assert type(error) is InvalidInput
    assert (error.message, error.hint, error.facts) == ("bad name 'x'", "use another", {"name": "x"})


def test_fields_of_an_error_survive():
    error = travel(StartFailed("no", exit_code=127, step="exec"))

    assert type(error) is StartFailed
    assert (error.exit_code, error.step) == (127, "exec")


def test_an_unknown_error_keeps_kind_and_code():
    error = decode_error({"kind": "exhausted", "code": "of-another-version", "message": "full"})

    assert isinstance(error, RemoteError)
    assert (error.kind, error.code, error.message) == (Kind.EXHAUSTED, "of-another-version", "full")


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, Kind.EXHAUSTED), (errno.ENOENT, Kind.NOT_FOUND), (errno.EIO, Kind.INTERNAL)],
)
def test_an_errno_tells_its_kind_and_file(number, kind):
    error = travel(OSError(number, "x", "/some/file"))

    assert error.kind is kind
    assert "/some/file" in error.message
    assert error.facts == {"errno": number}


def test_a_bug_is_internal():
    error = travel(KeyError("x"))

    assert error.kind is Kind.INTERNAL
    assert "KeyError" in error.message


def test_not_found_is_not_mixed_up_with_invalid():
    assert type(travel(NotFound("gone"))) is NotFound
