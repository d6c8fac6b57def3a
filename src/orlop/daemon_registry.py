"""Wiring of the registry client: its settings come from flags, the file and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orlop.aio.proxy import ProxyRules, masked_proxy
from orlop.base.clock import Clock
from orlop.base.version import VERSION
from orlop.daemon_flags import Settings
from orlop.registry.client import Registry
from orlop.registry.endpoints import DEFAULT_CONFIG_DIRS, RegistryOptions
from orlop.registry.retry import RetryPolicy

__all__ = ["ProxyTexts", "open_registry", "proxy_texts"]


@dataclass(frozen=True, slots=True)
class ProxyTexts:
    """The proxy settings as they were given; user and password are masked where they are shown."""

    http: str
    https: str
    no_proxy: str

    @property
    def shown(self) -> tuple[str, str, str]:
        """For `info`."""
        return masked_proxy(self.http), masked_proxy(self.https), self.no_proxy


def proxy_texts(settings: Settings, environ: Mapping[str, str]) -> ProxyTexts:
    """What was said in flags or file, else the environment's, upper case first, as in Go."""

    def one(said: str | None, name: str) -> str:
        return said if said is not None else environ.get(name) or environ.get(name.lower(), "")

    return ProxyTexts(
        one(settings.http_proxy, "HTTP_PROXY"),
        one(settings.https_proxy, "HTTPS_PROXY"),
        one(settings.no_proxy, "NO_PROXY"),
    )


def open_registry(settings: Settings, environ: Mapping[str, str], clock: Clock) -> Registry:
    """The client of all registries.

    Raises:
        InvalidUrl: a proxy's address is none.
    """
    proxies = proxy_texts(settings, environ)
    options = RegistryOptions(
        mirrors=settings.registry_mirrors,
        insecure=settings.insecure_registries,
        config_dirs=settings.registry_config_dirs or DEFAULT_CONFIG_DIRS,
        blocked=settings.blocked_registries,
        proxies=ProxyRules.parse(proxies.http, proxies.https, proxies.no_proxy),
        search_index=settings.search_index or "https://index.docker.io",
    )
    retry = RetryPolicy(attempts=settings.max_download_attempts)
    return Registry(options, user_agent=f"orlop/{VERSION}", clock=clock, retry=retry)
