"""HostConfig.SecurityOpt: Docker's words and ours, understood; the `hardened` preset.

Pure but for the `read_` and `ensure_` functions. A confinement that we cannot give is an error, never
dropped. Whoever names an option of a preset himself has the last word on it. What a preset comes to is
written into the container's configuration when it is made, so inspect shows it and a later change of
the engine's default does not reach it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orlop.base.errors import InvalidInput
from orlop.engine.privileges import capability_name
from orlop.runtime import seccomp
from orlop.runtime.apparmor import DEFAULT_PROFILE, AppArmorHost
from orlop.wire import gojson

if TYPE_CHECKING:
    from orlop.engine.hostconfig import HostDefaults
    from orlop.engine.requests import HostConfig

__all__ = [
    "HARDENED_DROPS",
    "PRESETS",
    "Security",
    "apply_preset",
    "confining_options",
    "ensure_apparmor_profile",
    "has_bare_system_paths",
    "named_apparmor_profile",
    "parse_seccomp_profile",
    "parse_security",
    "read_seccomp_profile",
]

PRESETS = ("docker", "hardened")
HARDENED_DROPS = ("AUDIT_WRITE", "MKNOD", "NET_RAW")
"""Docker's fourteen without these are Podman's eleven."""

_MAX_PROFILE = 1 << 20
_CONFINING = frozenset({"apparmor", "hardened", "no-new-privileges", "seccomp"})
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # Go's strconv.ParseBool
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Security:
    """What a container's processes are confined by, decided.

    `apparmor_profile` is "" for none. A hardened filter is ours, without a profile of the user's.
    """

    has_seccomp: bool = True
    seccomp_profile: dict[str, Any] | None = None
    has_hardened_seccomp: bool = False
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    has_writable_cgroup: bool = False


def parse_security(options: Iterable[str], *, is_privileged: bool, defaults: HostDefaults) -> Security:
    """Understand security options on top of the engine's defaults.

    Args:
        options: HostConfig.SecurityOpt, or none.
        is_privileged: no filter and no profile, unless the options name one.
        defaults: of the engine.

    Raises:
        InvalidInput: unknown option, bad profile, a confinement that this host lacks.
    """
    found = Security(
        has_seccomp=defaults.has_seccomp and not is_privileged,
        seccomp_profile=None if is_privileged else defaults.seccomp_profile,
        no_new_privileges=defaults.no_new_privileges,
        apparmor_profile="" if is_privileged else defaults.apparmor_profile,
    )
    names_seccomp, is_hardened = False, False
    for option in options:
        name, value = _split(option)
        match name:
            case "no-new-privileges":
                found = replace(found, no_new_privileges=_flag(option, value))
            case "seccomp":
                names_seccomp = True
                is_on, profile = _seccomp(value or "")
                found = replace(found, has_seccomp=is_on, seccomp_profile=profile)
            case "apparmor":
                found = replace(found, apparmor_profile=_apparmor(value or "", defaults))
            case "hardened":
                is_hardened = _flag(option, value)
            case "writable-cgroups":
                found = replace(found, has_writable_cgroup=_flag(option, value))
            case "label" | "disable":
                _check_label(option, value)
            case "userns" if value:
                pass  # decided when the container is made: `userns.asked_mode`
            case "systempaths" if value == "unconfined":
                pass  # decided with the other paths: `has_bare_system_paths`
            case _:
                raise InvalidInput(f'invalid --security-opt 2: "{option[:100]}"')
    has_own = found.has_seccomp and found.seccomp_profile is None and not names_seccomp
    return replace(found, has_hardened_seccomp=is_hardened and has_own)


def apply_preset(host: HostConfig, preset: str) -> HostConfig:
    """The configuration with everything written out that `hardened` comes to, if it is in force.

    Args:
        host: as asked for.
        preset: the engine's default, one of PRESETS; a privileged container never has it by default.

    Raises:
        InvalidInput: privileged and hardened at once.
    """
    options = host.security_opt or ()
    asked = [_flag(option, _split(option)[1]) for option in options if _split(option)[0] == "hardened"]
    if not (asked[-1] if asked else preset == "hardened" and not host.privileged):
        return host
    if host.privileged:
        raise InvalidInput(
            "conflicting options: hardened and privileged", hint="take one of the two from the command"
        )
    kept = [option for option in options if _split(option)[0] != "hardened"]
    if not any(_split(option)[0] == "no-new-privileges" for option in kept):
        kept.append("no-new-privileges")
    return replace(host, security_opt=(*kept, "hardened=true"), cap_drop=_hardened_drops(host))


def _hardened_drops(host: HostConfig) -> tuple[str, ...] | None:
    added = {capability_name(word, "CapAdd") for word in host.cap_add or ()}
    dropped = {capability_name(word, "CapDrop") for word in host.cap_drop or ()}
    if "ALL" in added or "ALL" in dropped:
        return host.cap_drop  # the user has decided about all of them
    more = tuple(f"CAP_{name}" for name in HARDENED_DROPS if name not in added | dropped)
    return (*(host.cap_drop or ()), *more)


def confining_options(options: Iterable[str]) -> tuple[str, ...]:
    """Those that take something from a container; what they say holds for its children, too."""
    return tuple(option for option in options if _confines(*_split(option)))


def _confines(name: str, value: str | None) -> bool:
    return name in _CONFINING and value != "unconfined" and value not in _FALSE


def has_bare_system_paths(options: Iterable[str]) -> bool:
    """Whether nothing of /proc and /sys is to be hidden; docker's CLI asks for it with empty lists."""
    return any(_split(option) == ("systempaths", "unconfined") for option in options)


def parse_seccomp_profile(text: str) -> dict[str, Any]:
    """A profile as JSON, tried on a plain container.

    Raises:
        InvalidInput: not a profile, or it asks for what we cannot do.
    """
    try:
        profile = gojson.parse(text.encode("utf-8", "surrogatepass"), limit=_MAX_PROFILE)
    except InvalidInput as error:
        raise InvalidInput(f"Decoding seccomp profile failed: {error.message}") from error
    if not isinstance(profile, dict):
        raise InvalidInput("Decoding seccomp profile failed: not a JSON object")
    seccomp.check_profile(profile)
    return profile


def ensure_apparmor_profile() -> str:
    """Load our AppArmor profile; its name, or "" on a host without AppArmor.

    Raises:
        InvalidInput: the host has AppArmor and the profile cannot be loaded; the engine then does not start.
    """
    try:
        return AppArmorHost().ensure_default()
    except OSError as error:  # the words are dockerd's
        raise InvalidInput(
            f"AppArmor enabled on system but the {DEFAULT_PROFILE} profile could not be loaded: "
            f"{error.strerror}",
            hint="install the apparmor package, whose apparmor_parser loads profiles",
        ) from error


def named_apparmor_profile(options: Iterable[str]) -> str:
    """What the options say of AppArmor, `unconfined` too; "" when they leave it to the engine."""
    named = [value or "" for name, value in map(_split, options) if name == "apparmor"]
    return named[-1] if named else ""


def read_seccomp_profile(setting: str) -> dict[str, Any] | None:
    """The engine's own default profile: of a file, or None for `builtin` and `unconfined`.

    Raises:
        InvalidInput: the file cannot be read or is no profile; the engine then does not start.
    """
    if setting in ("builtin", "unconfined", ""):
        return None
    try:
        with open(setting, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_MAX_PROFILE + 1)
    except OSError as error:
        raise InvalidInput(f"opening seccomp profile ({setting[:200]}) failed: {error.strerror}") from error
    return parse_seccomp_profile(text)


def _split(option: str) -> tuple[str, str | None]:
    """`name=value` or, as of old, `name:value`; None for a word alone."""
    separator = "=" if "=" in option else ":"
    name, found, value = option.partition(separator)
    return name, value if found else None


def _flag(option: str, value: str | None) -> bool:
    if value is None or value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidInput(f'invalid --security-opt 2: "{option[:100]}"')


def _seccomp(value: str) -> tuple[bool, dict[str, Any] | None]:
    if value == "unconfined":
        return False, None
    if value in ("builtin", "default", ""):
        return True, None
    return True, parse_seccomp_profile(value)


def _apparmor(value: str, defaults: HostDefaults) -> str:
    if value == "unconfined":
        return ""
    if not defaults.apparmor_profile:  # fail closed: what is asked for and cannot be had is refused
        raise InvalidInput(  # the last words are runc's
            f'AppArmor profile "{value[:100]}": apparmor: config provided but apparmor not supported',
            hint="this host has no AppArmor: use apparmor=unconfined, or enable it",
        )
    if not value or len(value) > 255 or any(not 0x21 <= ord(char) < 0x7F for char in value):
        raise InvalidInput(f"invalid AppArmor profile name {value[:100]!r}")
    return value


def _check_label(option: str, value: str | None) -> None:
    """`label=disable` is what we do; any other label would be a promise."""
    if option == "disable" or value == "disable":
        return
    raise InvalidInput(
        f'invalid --security-opt 2: "{option[:100]}": SELinux is not supported',
        hint="use label=disable; SELinux labels are not applied by this engine",
    )
