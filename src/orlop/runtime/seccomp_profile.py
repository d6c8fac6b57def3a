"""Docker's JSON seccomp profiles, old and new form, decided for one container. Pure.

Old form: `architectures` and one `name` an entry. New form: `archMap`, `names`, and `includes` and
`excludes` that depend on capabilities, architecture and kernel. Keys match whatever their case, as
in Go. Documents come from API clients: sizes are bounded, unknown keys are passed over, values of
the wrong type are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from orlop.base.errors import InvalidInput
from orlop.kernel.seccomp import ALLOW, KILL_PROCESS, KILL_THREAD, LOG, TRAP, Op, Rule, refuse, trace
from orlop.runtime.seccomp_policy import Policy, RuleBook, argument_test

__all__ = ["parse_profile"]

MAX_ENTRIES = 4096
MAX_NAMES = 4096
MAX_ARGUMENTS = 64
_EPERM = 1
_MAX_U64 = (1 << 64) - 1

_ACTIONS: dict[str, Callable[[int], int]] = {
    "SCMP_ACT_KILL": lambda _: KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": lambda _: KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": lambda _: KILL_PROCESS,
    "SCMP_ACT_TRAP": lambda _: TRAP,
    "SCMP_ACT_ERRNO": refuse,
    "SCMP_ACT_TRACE": trace,
    "SCMP_ACT_ALLOW": lambda _: ALLOW,
    "SCMP_ACT_LOG": lambda _: LOG,
}
_NATIVE = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})\Z")


class _Host(NamedTuple):
    """What conditions are decided against."""

    capabilities: frozenset[str]
    architecture: str  # Go's name: amd64
    kernel: tuple[int, int]


def parse_profile(
    profile: Mapping[str, Any], capabilities: frozenset[str], machine: str, kernel: tuple[int, int]
) -> Policy | None:
    """The policy that a profile means for a container on this host; None = unconfined.

    Raises:
        InvalidInput: malformed, or beyond what we do.
    """
    default_name = _text(profile, "defaultAction")
    entries = _objects(profile, "syscalls", MAX_ENTRIES)
    if not default_name and not entries:
        return None
    architecture, native = _NATIVE.get(machine, (machine, ""))
    host = _Host(capabilities, architecture, kernel)
    default_action = _action(default_name, _errno(profile, "defaultErrnoRet"))
    book = RuleBook()
    for entry in entries:
        if _applies(entry, host):
            _add_entry(book, entry, default_action)
    return Policy(default_action, book.rules(), _architectures(profile, native))


def _add_entry(book: RuleBook, entry: Mapping[str, Any], default_action: int) -> None:
    action = _action(_text(entry, "action"), _errno(entry, "errnoRet"))
    arguments = [_argument(argument) for argument in _objects(entry, "args", MAX_ARGUMENTS)]
    names = _names(entry)
    if action == default_action:
        return  # says nothing, and must not settle a call that another entry opens (runc does the same)
    for name in names:
        tests = tuple(argument_test(name, *argument) for argument in arguments)
        if len({test.index for test in tests}) < len(tests):
            for test in tests:  # several conditions on one argument are alternatives (runc)
                book.add(name, Rule(action, (test,)))
        else:
            book.add(name, Rule(action, tests))


def _names(entry: Mapping[str, Any]) -> list[str]:
    name, names = _text(entry, "name"), _strings(entry, "names", MAX_NAMES)
    if name and names:
        raise _invalid(
            "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
        )
    return [name] if name else names


def _argument(argument: Mapping[str, Any]) -> tuple[int, Op, int, int]:
    """(index, operator, value, mask). MASKED_EQ has its mask in `value` and the datum in `valueTwo`."""
    index = _number(argument, "index", 5)
    value, second = _number(argument, "value", _MAX_U64), _number(argument, "valueTwo", _MAX_U64)
    name = _text(argument, "op")
    try:
        op = Op(name)
    except ValueError:
        raise _invalid(f"unknown operator {name!r}") from None
    return (index, op, second, value) if op is Op.MASKED_EQ else (index, op, value, 0)


def _applies(entry: Mapping[str, Any], host: _Host) -> bool:
    excludes, includes = _object(entry, "excludes"), _object(entry, "includes")
    if any(holds for holds in _conditions(excludes, host, every_capability=False)):
        return False
    return all(holds for holds in _conditions(includes, host, every_capability=True))


def _conditions(conditions: Mapping[str, Any], host: _Host, *, every_capability: bool) -> Iterator[bool]:
    arches = _strings(conditions, "arches", MAX_NAMES)
    if arches:
        yield host.architecture in arches
    wanted = [
        name.removeprefix("CAP_") in host.capabilities for name in _strings(conditions, "caps", MAX_NAMES)
    ]
    if wanted:
        yield all(wanted) if every_capability else any(wanted)
    minimum = _text(conditions, "minKernel")
    if minimum:
        found = _VERSION.match(minimum)
        version = (int(found[1]), int(found[2])) if found else (0, 0)
        if version == (0, 0):
            raise _invalid(f'invalid kernel version: {minimum}, expected "<kernel>.<major>"')
        yield host.kernel >= version


def _architectures(profile: Mapping[str, Any], native: str) -> frozenset[str]:
    plain, mapped = _strings(profile, "architectures", 64), _objects(profile, "archMap", 64)
    if plain and mapped:
        raise _invalid(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    for entry in mapped:
        if _text(entry, "architecture") == native:
            return frozenset(_strings(entry, "subArchitectures", 64))
    return frozenset(plain)


def _action(name: str, number: int | None) -> int:
    make = _ACTIONS.get(name)
    if make is None:
        known = name == "SCMP_ACT_NOTIFY"
        raise _invalid(f"action {name!r} is {'not supported' if known else 'unknown'}")
    return make(_EPERM if number is None else number)


def _errno(document: Mapping[str, Any], key: str) -> int | None:
    return None if _value(document, key) is None else _number(document, key, 4095)


# --- Go's reading of JSON ---


def _value(document: Mapping[str, Any], key: str) -> Any:
    if key in document:
        return document[key]
    folded = key.casefold()
    return next((value for name, value in document.items() if str(name).casefold() == folded), None)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = _value(document, key)
    if value is not None and not isinstance(value, str):
        raise _invalid(f"{key!r} is not a string")
    return value or ""


def _number(document: Mapping[str, Any], key: str, maximum: int) -> int:
    value = _value(document, key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= maximum:
        raise _invalid(f"{key!r} is not a number from 0 to {maximum}")
    return value


def _list(document: Mapping[str, Any], key: str, limit: int) -> list[Any]:
    value = _value(document, key)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > limit:
        raise _invalid(f"{key!r} is not a list of at most {limit} elements")
    return value


def _strings(document: Mapping[str, Any], key: str, limit: int) -> list[str]:
    values = _list(document, key, limit)
    if not all(isinstance(value, str) for value in values):
        raise _invalid(f"{key!r} is not a list of strings")
    return values


def _objects(document: Mapping[str, Any], key: str, limit: int) -> list[Mapping[str, Any]]:
    values = [value for value in _list(document, key, limit) if value is not None]
    if not all(isinstance(value, Mapping) for value in values):
        raise _invalid(f"{key!r} is not a list of objects")
    return values


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = _value(document, key)
    if value is not None and not isinstance(value, Mapping):
        raise _invalid(f"{key!r} is not an object")
    return value or {}


def _invalid(reason: str) -> InvalidInput:
    return InvalidInput(f"invalid seccomp profile: {reason}")
