import socket
import threading

import pytest

from orlop.client.connection import BadAnswer, send_request


def exchange_with(answer, method="GET", body=None):
    ours, theirs = socket.socketpair()
    received = []

    def serve():
        data = b""
        while b"\r\n\r\n" not in data:
            data += theirs.recv(65536)
        received.append(data)
        theirs.sendall(answer)
        theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        return send_request(ours, method, "/x", {}, body), received
    finally:
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_the_three_kinds_of_body(answer):
    exchange, _ = exchange_with(answer)

    assert exchange.read() == b"hello"


def test_an_answer_to_head_has_no_body():
    exchange, _ = exchange_with(b"HTTP/1.1 404 Not Found\r\nContent-Length: 30\r\n\r\n", "HEAD")

    assert (exchange.head.status, exchange.read()) == (404, b"")


def test_after_an_upgrade_early_bytes_are_kept():
    exchange, _ = exchange_with(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly", "POST", b"")

    connection, leftover = exchange.take_socket()

    connection.close()
    assert leftover == b"early"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 x OK\r\n\r\n",
    ],
)
def test_a_broken_answer_is_told(answer):
    with pytest.raises(BadAnswer):
        exchange_with(answer)[0].read()
