"""What the command says about itself: `features`, and the config.json to begin with. Pure.

Spec: OCI runtime-spec 1.2, features.md, features-linux.md.
"""

from __future__ import annotations

from typing import Any

from orlop.base.version import VERSION
from orlop.bundle.config import SPEC_VERSION
from orlop.kernel import capabilities
from orlop.kernel.seccomp import Op
from orlop.runtime import defaults

__all__ = ["features_document", "starting_config"]

_MOUNT_WORDS = (
    "async atime bind defaults dev diratime dirsync exec idmap lazytime mand noatime nodev "
    "nodiratime noexec nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime "
    "rbind rdev rdiratime relatime rexec ridmap rnoatime rnodev rnodiratime rnoexec rnosuid "
    "rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow "
    "runbindable rw shared slave strictatime suid symfollow sync tmpcopyup unbindable"
).split()
_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_ACTIONS = (
    "SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD SCMP_ACT_LOG "
    "SCMP_ACT_TRACE SCMP_ACT_TRAP"
).split()


def features_document() -> dict[str, Any]:
    """What is implemented, whatever this host can."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(_HOOKS),
        "mountOptions": _MOUNT_WORDS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
            "capabilities": [f"CAP_{name}" for name in capabilities.ALL_NAMES],
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": _ACTIONS,
                "operators": sorted(op.value for op in Op),
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.orlop.runtime.version": VERSION},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def starting_config(*, is_rootless: bool = False, has_cgroup_namespace: bool = True) -> dict[str, Any]:
    """A container with a shell, confined as by default."""
    safe = ["nosuid", "noexec", "nodev"]
    kept = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    namespaces = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if has_cgroup_namespace else [])]
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": [*defaults.MASKED_PATHS],
        "readonlyPaths": [*defaults.READ_ONLY_PATHS],
    }
    if is_rootless:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    mounts: list[tuple[str, str, str, list[str]]] = [
        ("/proc", "proc", "proc", []),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", terminals),
        ("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),
        ("/dev/mqueue", "mqueue", "mqueue", safe),
        ("/sys", "sysfs", "sysfs", [*safe, "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", "ro"]),
    ]
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), kept),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "orlop",
        "mounts": [
            {"destination": destination, "type": kind, "source": source}
            | ({"options": options} if options else {})
            for destination, kind, source, options in mounts
        ],
        "linux": linux,
    }
