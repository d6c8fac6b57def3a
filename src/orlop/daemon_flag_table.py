"""The flags of `orlopd`: dockerd's, and a few of our own, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["BOOL", "BY_KEY", "BY_NAME", "BY_SHORT", "FLAGS", "Flag"]

BOOL, TEXT, LIST, MAP, NUMBER = "bool", "string", "list", "map", "int"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag; `key` is its name in daemon.json, "" where it has none."""

    name: str
    kind: str
    key: str = ""
    short: str = ""
    has_effect: bool = True
    help: str = ""


def _f(name: str, kind: str, key: str | None = "", **more: Any) -> Flag:
    return Flag(name, kind, name if key == "" else key or "", **more)


FLAGS: tuple[Flag, ...] = (
    _f("host", LIST, "hosts", short="H", help="socket to listen on: unix://, tcp:// or fd:// (repeatable)"),
    _f("data-root", TEXT, help="root directory of persistent state"),
    _f("graph", TEXT, None, short="g", help="the old name of --data-root"),
    _f("exec-root", TEXT, help="root directory of boot-scoped state"),
    _f("pidfile", TEXT, short="p", help="file to write the process id to"),
    _f("config-file", TEXT, None, help="daemon configuration file"),
    _f("validate", BOOL, None, help="check the configuration and exit"),
    _f("fsck", BOOL, None, help="check what is stored below the data root and exit"),
    _f("debug", BOOL, short="D", help="log everything"),
    _f("log-level", TEXT, short="l", help="debug, info, warn, error or fatal"),
    _f("log-format", TEXT, help="of the engine's own log: text or json"),
    _f("group", TEXT, short="G", help="group of the unix socket"),
    _f("label", LIST, "labels", help="label of the engine (repeatable)"),
    _f("insecure-registry", LIST, "insecure-registries", help="registry without TLS (repeatable)"),
    _f("registry-mirror", LIST, "registry-mirrors", help="mirror of Docker Hub (repeatable)"),
    _f(
        "registry-config-dir",
        LIST,
        "registry-config-dirs",
        help="where folders of registries are: hosts.toml, certificates (repeatable)",
    ),
    _f(
        "blocked-registry",
        LIST,
        "blocked-registries",
        help="registry never spoken to, or *.DOMAIN (repeatable)",
    ),
    _f("search-index", TEXT, help="server that a search asks, https://index.docker.io"),
    _f("http-proxy", TEXT, None, help="proxy of requests to http servers, before the environment's"),
    _f("https-proxy", TEXT, None, help="proxy of requests to https servers"),
    _f("no-proxy", TEXT, None, help="names, addresses and networks that are reached directly"),
    _f("init", BOOL, help="run an init in containers"),
    _f("init-path", TEXT, has_effect=False),
    _f("default-cgroupns-mode", TEXT, help="cgroup namespace of containers: private or host"),
    _f("cgroup-parent", TEXT, help="parent cgroup of containers"),
    _f("experimental", BOOL, help="show the engine as experimental"),
    _f("feature", MAP, "features", help="switch a feature: NAME=true (repeatable); cdi is known"),
    _f("tls", BOOL, help="use TLS on TCP sockets"),
    _f("tlsverify", BOOL, help="use TLS and ask clients for certificates"),
    _f("tlscacert", TEXT, help="certificates that clients must be signed by"),
    _f("tlscert", TEXT, help="certificate of the engine"),
    _f("tlskey", TEXT, help="key of the engine"),
    _f("log-driver", TEXT, help="log driver of containers"),
    _f("log-opt", MAP, "log-opts", help="option of the log driver (repeatable)"),
    _f("add-runtime", LIST, "runtimes", help="NAME=PATH of another OCI runtime (repeatable)"),
    _f("default-runtime", TEXT, help="OCI runtime of containers that name none; orlop is the embedded one"),
    _f("default-ulimit", LIST, "default-ulimits", help="NAME=SOFT[:HARD] of containers (repeatable)"),
    _f("default-shm-size", TEXT, help="size of /dev/shm"),
    _f("no-new-privileges", BOOL, help="no container gains privileges"),
    _f("default-userns-mode", TEXT, help="user namespace of containers: host or auto (a range of ids each)"),
    _f("userns-pool", TEXT, help="ids for automatic ranges, START:COUNT (default: of orlop in /etc/subuid)"),
    _f(
        "userns-remap", TEXT, help="one map for all containers, from /etc/subuid: default, USER or USER:GROUP"
    ),
    _f("default-security", TEXT, help="preset of containers: docker or hardened"),
    _f("seccomp-profile", TEXT, help="seccomp profile of containers: builtin, unconfined or a file"),
    _f("max-concurrent-downloads", NUMBER, help="layers fetched at a time by a pull"),
    _f("max-download-attempts", NUMBER, help="attempts at a download that makes no progress (5)"),
    _f("max-concurrent-uploads", NUMBER, help="layers sent at a time by a push"),
    _f("live-restore", BOOL, help="containers outlive the engine (default true)"),
    _f(
        "shutdown-timeout", NUMBER, help="seconds that containers get at a shutdown with --live-restore=false"
    ),
    _f("cdi-spec-dir", LIST, "cdi-spec-dirs", help="directory of CDI spec files (repeatable)"),
    _f("stats-interval", NUMBER, help="seconds between readings of the stats history (60; 0: none)"),
    _f("metrics-addr", TEXT, help="HOST:PORT where Prometheus reads metrics (GET /metrics)"),
    _f("image-gc", MAP, help="size budget of images and build cache: max-size=20GB, keep=24h (repeatable)"),
    _f("dns", LIST, help="DNS server of containers (repeatable)"),
    _f("dns-opt", LIST, "dns-opts", help="DNS option (repeatable)"),
    _f("dns-search", LIST, help="DNS search domain (repeatable)"),
    # networks
    _f(
        "bridge",
        TEXT,
        short="b",
        help="default network: none, or an existing bridge (default: one of our own)",
    ),
    _f("bip", TEXT, help="address and subnet of the default bridge, 172.17.0.1/24"),
    _f("bip6", TEXT, has_effect=False),
    _f("fixed-cidr", TEXT, help="part of the default bridge's subnet that containers get addresses of"),
    _f("fixed-cidr-v6", TEXT, has_effect=False),
    _f("default-gateway", TEXT, has_effect=False),
    _f("default-gateway-v6", TEXT, has_effect=False),
    _f(
        "default-address-pool",
        LIST,
        "default-address-pools",
        help="where subnets come from: base=NETWORK,size=PREFIX (repeatable)",
    ),
    _f("default-network-opt", LIST, "default-network-opts", has_effect=False),
    _f("firewall-backend", TEXT, has_effect=False),
    _f("host-gateway-ip", LIST, "host-gateway-ips", has_effect=False),
    _f("icc", BOOL, help="containers on the default bridge reach each other (default true)"),
    _f("ip", TEXT, help="address of the host where ports are published (0.0.0.0)"),
    _f("ip-forward", BOOL, has_effect=False),
    _f("ip-forward-no-drop", BOOL, has_effect=False),
    _f("ip-masq", BOOL, help="what leaves the default bridge gets the host's address (default true)"),
    _f("iptables", BOOL, help="install firewall rules (default true)"),
    _f("ip6tables", BOOL, has_effect=False),
    _f("ipv6", BOOL, help="give the default bridge IPv6 addresses"),
    _f("mtu", NUMBER, help="MTU of the default bridge"),
    _f("userland-proxy", BOOL, has_effect=False),
    _f("userland-proxy-path", TEXT, has_effect=False),
    _f("allow-direct-routing", BOOL, has_effect=False),
    _f("bridge-accept-fwmark", TEXT, has_effect=False),
    # what has no counterpart here
    _f("allow-nondistributable-artifacts", LIST, has_effect=False),
    _f("api-cors-header", TEXT, has_effect=False),
    _f("authorization-plugin", LIST, "authorization-plugins", has_effect=False),
    _f("containerd", TEXT, has_effect=False),
    _f("containerd-namespace", TEXT, has_effect=False),
    _f("containerd-plugins-namespace", TEXT, has_effect=False),
    _f("cpu-rt-period", NUMBER, has_effect=False),
    _f("cpu-rt-runtime", NUMBER, has_effect=False),
    _f("cri-containerd", BOOL, has_effect=False),
    _f("default-ipc-mode", TEXT, has_effect=False),
    _f("exec-opt", LIST, "exec-opts", has_effect=False),
    _f("network-control-plane-mtu", NUMBER, has_effect=False),
    _f("node-generic-resource", LIST, "node-generic-resources", has_effect=False),
    _f("oom-score-adjust", NUMBER, has_effect=False),
    _f("raw-logs", BOOL, has_effect=False),
    _f("rootless", BOOL, None, has_effect=False),
    _f("selinux-enabled", BOOL, has_effect=False),
    _f("storage-driver", TEXT, short="s", has_effect=False),
    _f("storage-opt", LIST, "storage-opts", has_effect=False),
    _f("swarm-default-advertise-addr", TEXT, has_effect=False),
)
BY_NAME = {flag.name: flag for flag in FLAGS}
BY_SHORT = {flag.short: flag for flag in FLAGS if flag.short}
BY_KEY = {flag.key: flag for flag in FLAGS if flag.key} | {"proxies": Flag("proxies", MAP)}
