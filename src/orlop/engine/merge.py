"""What a container inherits from its image, by dockerd's rules (runconfig.Merge).

Pure. The user's value wins when it is set; environment variables are merged by name; command and
entrypoint are inherited together: a new entrypoint drops the image's command.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orlop.base.errors import InvalidInput
from orlop.engine.requests import ContainerConfig, HealthConfig

__all__ = ["DEFAULT_PATH", "merge_config", "merge_env", "path_and_args", "process_env"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge_config(user: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """The user's configuration with the image's values where the user gave none.

    Raises:
        InvalidInput: neither names a command.
    """
    entrypoint, cmd = user.entrypoint, user.cmd
    if not entrypoint:
        if not cmd:
            cmd = image.cmd or cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == ("",):  # `--entrypoint ""` resets the image's
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidInput("no command specified")
    return replace(
        user,
        user=user.user or image.user,
        exposed_ports=_union(user.exposed_ports, image.exposed_ports),
        env=merge_env(image.env or (), user.env or ()),
        labels={**(image.labels or {}), **(user.labels or {})},
        entrypoint=entrypoint,
        cmd=cmd,
        working_dir=user.working_dir or image.working_dir,
        volumes=_union(user.volumes, image.volumes),
        stop_signal=user.stop_signal or image.stop_signal,
        healthcheck=_merge_health(user.healthcheck, image.healthcheck),
        shell=user.shell or image.shell,
    )


def merge_env(base: Iterable[str], over: Iterable[str]) -> tuple[str, ...]:
    """Variables of `over`, then those of `base` that `over` does not name, as dockerd orders them."""
    over = tuple(over)
    named = {item.partition("=")[0] for item in over}
    return (*over, *(item for item in base if item.partition("=")[0] not in named))


def process_env(config: ContainerConfig, hostname: str, extra: Iterable[str] = ()) -> tuple[str, ...]:
    """The environment of the first process: defaults, then the configuration's.

    A variable without `=` asks to remove the default of that name.
    """
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if config.tty:
        defaults.append("TERM=xterm")
    return overlay_env(defaults, (*(config.env or ()), *extra))


def overlay_env(base: Iterable[str], over: Iterable[str]) -> tuple[str, ...]:
    """`base` with the variables of `over` put in place; a name without `=` is removed."""
    values: dict[str, str | None] = {}
    for item in (*base, *over):
        name, equals, value = item.partition("=")
        if not equals:
            values.pop(name, None)
        else:
            values[name] = value
    return tuple(f"{name}={value}" for name, value in values.items())


def path_and_args(config: ContainerConfig) -> tuple[str, tuple[str, ...]]:
    """The program and its arguments, as inspect shows them."""
    words = (*(config.entrypoint or ()), *(config.cmd or ()))
    return words[0], words[1:]


def _union(ours: frozenset[str] | None, theirs: frozenset[str] | None) -> frozenset[str] | None:
    if not ours and not theirs:
        return ours
    return (ours or frozenset()) | (theirs or frozenset())


def _merge_health(ours: HealthConfig | None, theirs: HealthConfig | None) -> HealthConfig | None:
    if theirs is None or ours is None:
        return ours or theirs
    return HealthConfig(
        test=ours.test or theirs.test,
        interval=ours.interval or theirs.interval,
        timeout=ours.timeout or theirs.timeout,
        start_period=ours.start_period or theirs.start_period,
        start_interval=ours.start_interval or theirs.start_interval,
        retries=ours.retries or theirs.retries,
    )
