import asyncio
import base64

import pytest

from orlop.aio.http_client import AddressRefused, ConnectFailed, Dial, HttpClient
from orlop.aio.proxy import ProxyRules, masked_proxy, parse_proxy
from orlop.aio.url import InvalidUrl, parse_url


def through(no_proxy, url):
    rules = ProxyRules.parse("http://p:1", "http://p:2", no_proxy)
    return rules.find(parse_url(url).origin)


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", "https://a.example"),
        ("example.com", "https://example.com"),
        ("example.com", "https://www.example.com:5000"),
        (".example.com", "http://www.example.com"),
        ("*.example.com", "http://www.example.com"),
        ("a, 10.0.0.0/8", "http://10.1.2.3:5000"),
        ("1.2.3.4", "http://1.2.3.4"),
        ("[fd00::1]:5000", "http://[fd00::1]:5000"),
        ("fd00::/8", "http://[fd00::1]"),
        ("reg.lan:5000", "http://reg.lan:5000"),
        ("", "http://localhost:5000"),
        ("", "http://127.0.0.1:5000"),
        ("", "http://[::1]:5000"),
    ],
)
def test_what_is_reached_directly(no_proxy, url):
    assert through(no_proxy, url) is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", "https://example.com"),
        (".example.com", "http://example.com"),
        ("example.com", "http://badexample.com"),
        ("reg.lan:5000", "http://reg.lan:5001"),
        ("10.0.0.0/8,nonsense/99", "http://11.1.2.3"),
        ("1.2.3.4", "http://1.2.3.45"),
    ],
)
def test_what_goes_through_the_proxy(no_proxy, url):
    assert through(no_proxy, url).origin.port == (2 if url.startswith("https") else 1)


def test_passwords_of_proxies_are_not_shown():
    proxy = parse_proxy("http://me:ge%3Aheim@p:3128")

    assert proxy.headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"me:ge:heim").decode()
    assert "Basic" not in repr(proxy)
    assert masked_proxy("http://me:geheim@p:3128") == "http://xxxxx:xxxxx@p:3128"
    with pytest.raises(InvalidUrl) as caught:
        parse_proxy("http://me:geheim@not a host")
    assert "geheim" not in str(caught.value)
    with pytest.raises(InvalidUrl, match="scheme"):
        parse_proxy("socks5://p:1")


def talk(answer, url, allows=None):
    """One request through a proxy that gives `answer`; what the proxy was sent, and the result."""
    seen = []

    async def serve(reader, writer):
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        proxy = parse_proxy(f"me:pw@127.0.0.1:{server.sockets[0].getsockname()[1]}")
        client = HttpClient(user_agent="t")
        import ssl

        dial = Dial(tls=ssl.create_default_context(), proxy=proxy, allows_address=allows)
        try:
            async with client.request("GET", parse_url(url), dial=dial) as response:
                return await response.read(100)
        except (ConnectFailed, AddressRefused) as error:
            return error
        finally:
            client.close()
            server.close()

    result = asyncio.run(main())
    return seen, result


def test_plain_requests_name_the_whole_url():
    seen, result = talk(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "http://reg.example:5000/v2/")

    assert result == b"hi"
    assert seen[0].startswith("GET http://reg.example:5000/v2/ HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic" in seen[0]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 No way\r\n\r\n", b"nonsense\r\n\r\n", b"", b"x" * 20_000])
def test_a_proxy_that_refuses_is_told_by_name(answer):
    seen, result = talk(answer, "https://reg.example/v2/")

    assert seen[0].startswith("CONNECT reg.example:443 HTTP/1.1\r\nHost: reg.example:443\r\n")
    assert isinstance(result, ConnectFailed)
    assert "the proxy http://127.0.0.1" in str(result)


def test_addresses_that_must_not_be_reached_are_not_reached_through_a_proxy_either():
    seen, result = talk(b"", "https://169.254.169.254/", allows=lambda address: not address.is_link_local)

    assert isinstance(result, AddressRefused)
    assert seen == []
