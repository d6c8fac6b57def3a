import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.api.negotiation import choose_type

OFFERS = ("application/json", "application/x-ndjson", "application/json-seq")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("Application/X-NDJSON ; q=0.5", "application/x-ndjson"),
        ("application/json;q=0.4, application/json-seq;q=0.9, */*;q=0.1", "application/json-seq"),
        ("application/json-seq, application/x-ndjson", "application/x-ndjson"),
        ("application/json-seq;q=0, text/html", "application/json"),
        ("application/json-seq;q=9", "application/json"),
        ("application/json-seq;q=nan", "application/json"),
    ],
)
def test_the_type_that_the_client_prefers(accept, wanted):
    assert choose_type(accept, OFFERS, "application/json") == wanted


@settings(max_examples=40)
@given(st.text())
def test_any_header_gives_a_type(accept):
    assert choose_type(accept, OFFERS, "application/json") in OFFERS
