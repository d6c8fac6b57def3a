import asyncio
import contextlib
import dataclasses
import ssl
import subprocess

import pytest
from fake_registry import INDEX, FakeRegistry, Reply

from orlop.aio.http_client import AddressRefused, TlsFailed
from orlop.aio.proxy import ProxyRules
from orlop.base.errors import OrlopError
from orlop.oci.reference import parse_reference
from orlop.registry.auth import Credentials
from orlop.registry.client import Registry
from orlop.registry.endpoints import RegistryOptions
from orlop.registry.errors import RegistryUnavailable
from orlop.registry.retry import RetryPolicy

DOCUMENT = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
FAST = RetryPolicy(attempts=2, first_delay_s=0.001, max_delay_s=0.002)


@pytest.fixture(scope="module")
def server_context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=reg.test",
               "-addext", "subjectAltName=DNS:reg.test", "-keyout", folder / "key", "-out", folder / "crt"]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context, str(folder / "crt")


@contextlib.asynccontextmanager
async def proxy_to(port, seen):
    """Every tunnel leads to `port`, whatever was asked for."""
    tasks = set()

    async def copy(reader, writer):
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        there = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
        finally:
            writer.transport.abort()
            there[1].transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def fetch(server_context, tmp_path, settings, *hooks, credentials=None):
    """The manifest `app:1` of https://reg.test:5000 through a proxy; also what the proxy was asked."""
    context, crt = server_context
    folder = tmp_path / "reg.test:5000"
    folder.mkdir()
    (folder / "hosts.toml").write_text(f'server = "https://reg.test:5000"\n{settings.format(crt=crt)}\n')
    seen = []

    async def main():
        async with FakeRegistry(context) as fake, proxy_to(fake.port, seen) as port:
            fake.add_manifest("app", "1", DOCUMENT, INDEX)
            fake.hooks += hooks
            rules = ProxyRules.parse("", f"http://me:geheim@127.0.0.1:{port}", "")
            options = RegistryOptions(config_dirs=(str(tmp_path),), proxies=rules)
            registry = Registry(options, user_agent="test", retry=FAST)
            try:
                app = registry.repository(parse_reference("reg.test:5000/app:1"), credentials)
                return (await app.get_manifest("1")).data, fake.log
            except OrlopError as error:
                return error, fake.log
            finally:
                registry.close()

    return (*asyncio.run(main()), seen)


def test_tls_goes_through_a_tunnel_and_is_verified_in_it(server_context, tmp_path):
    data, log, seen = fetch(server_context, tmp_path, 'ca = "{crt}"')

    assert b"manifests" in data
    assert seen[0][0] == "CONNECT reg.test:5000 HTTP/1.1"
    assert any(line.startswith("Proxy-Authorization: Basic ") for line in seen[0])
    assert all("proxy-authorization" not in call.headers for call in log)


def test_an_unknown_authority_is_refused_unless_the_file_says_otherwise(server_context, tmp_path):
    refused, log, _ = fetch(server_context, tmp_path, "")
    (tmp_path / "lax").mkdir()
    data, _, _ = fetch(server_context, tmp_path / "lax", "skip_verify = true")

    assert isinstance(refused, RegistryUnavailable | TlsFailed)
    assert "certificate verify failed" in str(refused)
    assert log == []
    assert b"manifests" in data


@pytest.mark.parametrize(
    "target", ["https://169.254.169.254/x", "https://10.0.0.1/x", "https://127.0.0.1:1/x"]
)
def test_a_registry_behind_a_proxy_cannot_send_us_into_our_network(server_context, tmp_path, target):
    async def away(request):
        return Reply(307, b"", {"Location": target})

    error, log, seen = fetch(
        server_context, tmp_path, 'ca = "{crt}"', away, credentials=Credentials("me", "secret")
    )

    assert isinstance(error, AddressRefused)
    assert len(log) == 1
    assert len(seen) == 1


def test_options_do_not_show_the_proxy_password():
    rules = ProxyRules.parse("http://me:geheim@p:1", "", "")

    assert "Basic" not in repr(dataclasses.replace(RegistryOptions(), proxies=rules))
