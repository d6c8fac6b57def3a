import asyncio

import pytest

from orlop.aio.http_client import TlsFailed
from orlop.aio.url import Origin
from orlop.base.errors import InvalidInput
from orlop.registry.certificates import TlsContexts
from orlop.registry.endpoints import HUB_ORIGIN, RegistryOptions, certificates_of, endpoints_of


def origins(domain, options=None, *, for_push=False):
    found = asyncio.run(endpoints_of(domain, options or RegistryOptions(), for_push=for_push))
    return [str(endpoint.origin) + endpoint.prefix for endpoint in found]


def test_the_hub_is_behind_docker_io_and_mirrors_come_first_for_pulls_only():
    options = RegistryOptions(mirrors=("https://mirror.example/hub/", "http://127.0.0.1:5000"))

    assert origins("docker.io", options) == [
        "https://mirror.example/hub",
        "http://127.0.0.1:5000",
        str(HUB_ORIGIN),
    ]
    assert origins("docker.io", options, for_push=True) == [str(HUB_ORIGIN)]
    assert origins("quay.io", options) == ["https://quay.io"]


@pytest.mark.parametrize("domain", ["localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"])
def test_loopback_falls_back_to_plain_http(domain):
    assert origins(domain) == [f"https://{domain}", f"http://{domain}"]


def test_insecure_registries_are_named_by_host_port_or_network():
    options = RegistryOptions(insecure=("reg.example:5000", "bare.example", "10.0.0.0/8"))

    assert len(origins("reg.example:5000", options)) == 2
    assert len(origins("reg.example:5001", options)) == 1
    assert len(origins("bare.example", options)) == 2
    assert len(origins("10.1.2.3:5000", options)) == 2
    assert len(origins("11.1.2.3:5000", options)) == 1


def test_malformed_settings_are_refused():
    with pytest.raises(InvalidInput):
        origins("11.1.2.3", RegistryOptions(insecure=("10.0.0.0/99",)))
    with pytest.raises(InvalidInput):
        origins("docker.io", RegistryOptions(mirrors=("https://x/?a=b",)))


def test_certificates_that_cannot_be_read_are_an_error_that_names_the_folder(tmp_path):
    folder = tmp_path / "reg.example:5000"
    folder.mkdir()
    (folder / "ca.crt").write_text("nonsense")
    options, contexts = RegistryOptions(config_dirs=(str(tmp_path),)), TlsContexts()

    def context(host, port):
        return contexts.of(certificates_of(Origin("https", host, port), options))

    assert context("other.example", 443) is context("third.example", 443)
    with pytest.raises(TlsFailed, match=r"reg\.example:5000"):
        context("reg.example", 5000)
