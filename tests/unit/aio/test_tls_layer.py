"""Who has not shown a certificate takes a bounded number of connections."""

import asyncio
import ssl

import pytest

from orlop.aio import tls
from orlop.aio.tls import TlsLayer


class Below(asyncio.Transport):
    def __init__(self):
        super().__init__()
        self.is_aborted = False

    def abort(self):
        self.is_aborted = True


def test_handshakes_that_are_under_way_are_counted(monkeypatch):
    monkeypatch.setattr(tls, "MAX_HANDSHAKES", 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    under_way = set()

    def connect():
        layer = TlsLayer(context, lambda: pytest.fail("no handshake was made"), under_way)
        layer.connection_made(Below())
        return layer

    async def run():
        first, second, third = connect(), connect(), connect()
        assert [item.below.is_aborted for item in (first, second, third)] == [False, False, True]
        third.connection_lost(None)
        assert under_way == {first, second}

        first.connection_lost(None)
        fourth = connect()
        assert not fourth.below.is_aborted
        for layer in (second, fourth):
            layer.connection_lost(None)
        assert under_way == set()

    asyncio.run(run())
