"""Writing limits and reading them back: the kernel says what it took, and that is what counts (I21)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from orlop.kernel.cgroup_limits import Write

__all__ = ["apply_writes", "was_taken"]

_PAGE_SLACK = 1 << 16  # the kernel keeps memory in pages, the largest of which are 64 KiB
_UNLIMITED = 1 << 60
_INT_MAX = (1 << 31) - 1

WriteFile = Callable[[str, str, str], None]
ReadFile = Callable[[str, str], str]


def apply_writes(writes: Sequence[Write], write_file: WriteFile, read_file: ReadFile) -> list[str]:
    """Set limits; returns the names of those that this kernel has no file for.

    Args:
        writes: in the order that suits a fresh cgroup.
        write_file: (controller, file, value); FileNotFoundError when the kernel lacks it.
        read_file: (controller, file) -> text.

    Raises:
        OSError: a value was refused, or something else than the value is in force afterwards.
    """
    missing: list[str] = []
    done: list[Write] = []
    failed: list[Write] = []
    for write in writes:
        try:
            done.append(_write(write, write_file))
        except FileNotFoundError:
            missing.append(write.limit)
        except OSError:
            failed.append(write)
    # memory <= memory+swap holds at every moment (v1), likewise quota and period bounds: a value
    # refused at first fits once its partner is set.
    done += [_write(write, write_file) for write in failed]
    for write in done:
        text = read_file(write.controller, write.file)
        if not was_taken(write, text):
            _explain_shares(write)
            found = " ".join(text.split())[:100]
            raise OSError(errno.EINVAL, f"{write.limit} of {write.value} was taken as {found!r}", write.file)
    return missing


def _write(write: Write, write_file: WriteFile) -> Write:
    """Returns the write that was made: the first choice, or the one instead of it."""
    try:
        write_file(write.controller, write.file, write.value)
    except OSError as error:
        # EOPNOTSUPP: BFQ is there, and this device has another scheduler
        if write.instead is None or error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        file, value = write.instead
        write_file(write.controller, file, value)
        return write._replace(file=file, value=value, instead=None)
    return write


def _explain_shares(write: Write) -> None:
    """The kernel bends shares into its range instead of refusing them; the texts are runc's."""
    if write.file == "cpu.shares":
        bound = (
            "minimum allowed cpu-shares is 2"
            if int(write.value) < 2
            else "maximum allowed cpu-shares is 262144"
        )
        raise OSError(errno.EINVAL, f"the {bound}")


def was_taken(write: Write, text: str) -> bool:
    """Whether the content of a control file is what was written to it; pure.

    A write that may legally read otherwise (a page more or less, a device whose driver forgot it) counts
    as taken when the limit is at most as loose as asked.
    """
    text = text.strip()
    match write.file:
        case "cpuset.cpus" | "cpuset.mems":
            return parse_list(text) == parse_list(write.value)
        case "memory.oom_control":
            return f"oom_kill_disable {write.value}" in text.splitlines()
        case "io.max":
            return _has_io_limit(write.value, text)
        case "io.weight" | "io.bfq.weight" | "blkio.weight_device" | "blkio.bfq.weight_device":
            return _has_weight(write.value, text)
        case file if file.startswith("blkio.throttle."):
            device, _, rate = write.value.partition(" ")
            rates = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
            return rates.get(device, "0") == rate or (int(rate) >= _INT_MAX and device not in rates)
        case file if file.startswith("memory.") and file != "memory.swappiness":
            return _is_near(write.value, text)
        case _:
            return text == write.value


def _is_near(asked: str, found: str) -> bool:
    wanted, present = _bytes(asked), _bytes(found)
    if wanted >= _UNLIMITED:
        return present >= _UNLIMITED
    return abs(present - wanted) < _PAGE_SLACK


def _bytes(text: str) -> int:
    return int(text) if text.isdecimal() else _UNLIMITED


def _has_io_limit(asked: str, text: str) -> bool:
    device, _, pair = asked.partition(" ")
    key, _, value = pair.partition("=")
    for line in text.splitlines():
        words = line.split()
        if words[:1] == [device]:
            found = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            return found.get(key, "max") == value
    return value == "max"  # a device without any limit has no line


def _has_weight(asked: str, text: str) -> bool:
    lines = text.splitlines()
    if " " in asked:
        return asked in lines
    return any(line in (asked, f"default {asked}") for line in lines)


def parse_list(text: str) -> frozenset[int]:
    """`0-3,7` as numbers. Raises ValueError."""
    numbers: set[int] = set()
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        if dash and int(last) - int(first) > _INT_MAX >> 8:
            raise ValueError(f"list of too many numbers: {part[:40]}")
        numbers.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(numbers)
