import errno

from orlop.base.errors import InvalidInput, Kind, describe_os_error


def test_an_error_shows_message_and_hint():
    error = InvalidInput("bad thing", hint="try a good one", thing="x")

    assert str(error) == "bad thing (try a good one)"
    assert (error.kind, error.facts) == (Kind.INVALID, {"thing": "x"})


def test_errno_is_named():
    assert describe_os_error(OSError(errno.EPERM, "x")) == "EPERM (operation not permitted)"
