import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.signals import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGKILL", 9), ("kill", 9), ("9", 9), ("TERM", 15), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)],
)
def test_names_and_numbers_are_signals(text, number):
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "RTMIN+31", "-9", "9x", "RTMAX+1"])
def test_everything_else_is_refused(text):
    with pytest.raises(InvalidInput, match="invalid signal"):
        parse_signal(text)
