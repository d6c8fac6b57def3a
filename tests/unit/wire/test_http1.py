"""Heads and chunks: what is read, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.wire import http1
from orlop.wire.http1 import BadHttp, ChunkedDecoder

GET = b"GET /v1.51/containers/json?all=1 HTTP/1.1\r\nHost: docker\r\n"


def test_a_request_head_is_taken_apart():
    head = http1.parse_request(GET + b"Accept:  text/plain \r\nX-A: 1\r\nx-a: 2\r\nEmpty:\r\n\r\n")

    assert (head.method, head.target, head.minor) == ("GET", "/v1.51/containers/json?all=1", 1)
    assert head.headers == {"host": "docker", "accept": "text/plain", "x-a": "1, 2", "empty": ""}
    assert head.keeps_alive()
    assert http1.body_framing(head) == 0


def test_connection_options_decide_about_keep_alive():
    assert not http1.parse_request(GET + b"Connection: foo, Close\r\n\r\n").keeps_alive()
    assert not http1.parse_request(b"GET / HTTP/1.0\r\n\r\n").keeps_alive()
    assert http1.parse_request(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keeps_alive()


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        b"Content-Length: 3, 3\r\n\r\n",
        b"Content-Length: +3\r\n\r\n",
        b"Content-Length: 0x3\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: \r\n\r\n",
        b"Content-Length: \xb2\r\n\r\n",
        b"Content-Length: 99999999999999999999\r\n\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n",
        b"A: b\r\n folded\r\n\r\n",
        b" A: b\r\n\r\n",
        b"A: b\nC: d\r\n\r\n",
        b"A: b\rC: d\r\n\r\n",
        b"A: b\x00\r\n\r\n",
        b"A(): b\r\n\r\n",
        b": b\r\n\r\n",
        b"no colon\r\n\r\n",
        b"Host: other\r\n\r\n",
        b"A: b\r\n",
    ],
)
def test_ambiguous_or_malformed_fields_are_refused(rest):
    with pytest.raises(BadHttp):
        http1.body_framing(http1.parse_request(GET + rest))


@pytest.mark.parametrize(
    "line",
    [b"GET  / HTTP/1.1", b"GET / HTTP/2.0", b"GET / HTTP/1.11", b"GET /", b"G\xc3T / HTTP/1.1", b"GET /a b HTTP/1.1", b"", b"GET / http/1.1", b"GET /\x00 HTTP/1.1"],
)  # fmt: skip
def test_malformed_request_lines_are_refused(line):
    with pytest.raises(BadHttp):
        http1.parse_request(line + b"\r\nHost: x\r\n\r\n")


def test_host_is_required_in_11_only_and_may_be_empty():
    with pytest.raises(BadHttp, match="Host"):
        http1.parse_request(b"GET / HTTP/1.1\r\n\r\n")
    assert http1.parse_request(b"POST /grpc HTTP/1.1\r\nHost:\r\n\r\n").headers["host"] == ""


def test_a_response_head_and_its_framing():
    head = http1.parse_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    assert (head.status, head.reason) == (200, "OK")
    assert http1.response_framing(head, "GET") == http1.CHUNKED
    assert http1.response_framing(head, "HEAD") == 0
    assert http1.response_framing(http1.parse_response(b"HTTP/1.1 200\r\n\r\n"), "GET") == http1.TO_EOF
    assert http1.response_framing(http1.parse_response(b"HTTP/1.1 204 No\r\n\r\n"), "GET") == 0


def test_our_own_heads_cannot_be_split():
    assert http1.encode_head("HTTP/1.1 200 OK", [("A", "b")]) == b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n"
    for name, value in [("A", "b\r\nC: d"), ("A\r\n", "b"), ("A", "\0"), ("", "b")]:
        with pytest.raises(ValueError):
            http1.encode_head("HTTP/1.1 200 OK", [(name, value)])


@pytest.mark.parametrize(
    "wire",
    [b"g\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"\r\n", b" 1\r\n", b"1\n", b"1;a\nb\r\n", b"1\r\nabc", b"f" * 16 + b"\r\n",
     b"1;" + b"x" * 300, b"0\r\nbad trailer\r\n", b"0\r\n" + b"A: b\r\n" * 3000],
)  # fmt: skip
def test_malformed_chunks_are_refused(wire):
    with pytest.raises(BadHttp):
        ChunkedDecoder().feed(wire)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=40)),
    st.lists(st.integers(1, 17), min_size=1),
    st.binary(max_size=20),
)
def test_chunks_survive_any_split(pieces, cuts, after):
    wire = (
        b"".join(http1.chunk_head(len(piece)) + piece + b"\r\n" for piece in pieces)
        + http1.LAST_CHUNK
        + after
    )
    decoder, out, at, turn = ChunkedDecoder(), b"", 0, 0

    while at < len(wire) and not decoder.is_done:
        step = cuts[turn % len(cuts)]
        out += b"".join(decoder.feed(wire[at : at + step]))
        at, turn = at + step, turn + 1

    assert decoder.is_done
    assert out == b"".join(pieces)
    assert decoder.rest + wire[at:] == after


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_fail_otherwise(data):
    for parse in (http1.parse_request, http1.parse_response, ChunkedDecoder().feed):
        try:
            parse(data)
        except BadHttp:
            continue
