"""hosts.toml, certificates of registries, client certificates, proxies: with real registries over TLS."""

import json
import subprocess
from pathlib import Path

import pytest

from orlop.oci.platform import host_platform
from support import images, registry
from support.orlopd import Orlopd
from support.registry_in_thread import RegistryInThread, tar_of

ARCH = host_platform().architecture


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority of our own, a server's certificate for 127.0.0.1 and a client's."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*words):
        try:
            subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
        except FileNotFoundError:
            pytest.skip("needs openssl")

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:reg.test\n")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names", "-out", f"{name}.crt")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def tls_registry(certificates):
    """It wants a client's certificate."""
    if reason := registry.missing():
        pytest.skip(reason)
    with registry.TlsRegistry(certificates) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "hosts.d"


def configure(folder, domain, text="", **files):
    own = folder / domain
    own.mkdir(parents=True)
    if text:
        (own / "hosts.toml").write_text(text)
    for name, source in files.items():
        stem, _, ending = name.rpartition("_")
        (own / f"{stem}.{ending}").write_bytes(Path(source).read_bytes())


def test_client_certificates_of_both_kinds_of_folder(certificates, tls_registry, folder):
    alias = "reg.test:5000"
    configure(
        folder,
        tls_registry.address,
        ca_crt=certificates / "ca.crt",
        me_cert=certificates / "client.crt",
        me_key=certificates / "client.key",
    )
    configure(
        folder,
        alias,
        f'server = "https://{tls_registry.address}"\n'
        f'ca = "{certificates}/ca.crt"\nclient = [["{certificates}/client.crt", "{certificates}/client.key"]]\n',
    )
    with Orlopd("--registry-config-dir", str(folder)) as engine:
        engine.docker("load", input=images.busybox_archive("busybox:latest"))
        name = f"{tls_registry.address}/own/box:1"
        engine.docker("tag", "busybox", name)
        engine.docker("push", name)
        by_alias = engine.docker("pull", f"{alias}/own/box:1").stdout
        (folder / tls_registry.address / "me.cert").unlink()
        refused = engine.docker("pull", name, check=False)
        anonymous = engine.docker("push", name, check=False)

    assert f"Status: Downloaded newer image for {alias}/own/box:1" in by_alias
    assert refused.returncode == anonymous.returncode == 1  # at once: files are looked at anew


def test_mirrors_of_any_registry_are_asked_in_order_with_their_headers(folder, docker_registry, tmp_path):
    with RegistryInThread() as fake:
        fake.add_image("app", "1", [tar_of(a=b"1")], arch=ARCH)
        dead = f"127.0.0.1:{registry.free_port()}"
        configure(
            folder,
            "far.test",
            f'[host."http://{dead}"]\n[host."http://{fake.domain}"]\n'
            f'[host."http://{fake.domain}".header]\nAuthorization = "Basic geheim"\n',
        )
        with Orlopd("--registry-config-dir", str(folder), "--debug") as engine:
            login = '{"auths": {"far.test": {"auth": "YWxpY2U6cGFzc3dvcmQ="}}}'
            (engine.home / ".docker" / "config.json").write_text(login)
            pulled = engine.docker("pull", "far.test/app:1").stdout
            log = engine.log()

    assert "Status: Downloaded newer image for far.test/app:1" in pulled
    assert {call.authorization for call in fake.log} == {"Basic geheim"}  # never the user's own
    assert all("ns=far.test" in call.target for call in fake.log)
    assert "geheim" not in log
    assert "cGFzc3dvcmQ" not in log


def test_the_proxy_of_the_configuration_is_used(tmp_path):
    with RegistryInThread() as fake:
        # a proxy and a registry in one: what it is sent names the whole URL
        fake.add_image("app", "1", [tar_of(a=b"1")], arch=ARCH)
        seen = []

        async def proxy(request):
            seen.append((request.target, request.headers.get("proxy-authorization", "")))
            request.target = request.target.removeprefix("http://reg.test:5000")

        fake.hooks.append(proxy)
        config = tmp_path / "daemon.json"
        proxies = {"http-proxy": f"http://me:geheim@{fake.domain}", "no-proxy": "127.0.0.0/8"}
        settings = {"proxies": proxies, "registry-config-dirs": [str(tmp_path / "hosts.d")]}
        config.write_text(json.dumps(settings))
        configure(tmp_path / "hosts.d", "reg.test:5000", 'server = "http://reg.test:5000"\n')
        with Orlopd("--config-file", str(config)) as engine:
            engine.docker("pull", "reg.test:5000/app:1")
            info = engine.docker("info", "--format", "{{.HTTPProxy}} {{.NoProxy}}").stdout
            log = engine.log()

    assert seen[0] == ("http://reg.test:5000/v2/app/manifests/1", "Basic bWU6Z2VoZWlt")
    assert info == f"http://xxxxx:xxxxx@{fake.domain} 127.0.0.0/8\n"
    assert "geheim" not in log
