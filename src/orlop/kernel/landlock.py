"""Landlock: a process takes file system rights from itself, for good and for its children.

The calls are bound by number: the structures are those of Linux 5.13 and only grow at the end.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from ctypes import byref, sizeof

from orlop.kernel.syscall import INT, PTR, SIZE, UINT, SystemCall

__all__ = ["abi", "restrict_to"]

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # ABI -> how many file system rights it has; 5 and later: 16

_create_ruleset = SystemCall("landlock_create_ruleset", PTR, SIZE, UINT)
_add_rule = SystemCall("landlock_add_rule", INT, INT, PTR, UINT)
_restrict_self = SystemCall("landlock_restrict_self", INT, UINT)


class _RulesetAttr(ctypes.Structure):
    _fields_ = [("handled_access_fs", ctypes.c_uint64)]


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def abi() -> int:
    """The version that the kernel offers, 0 for none."""
    try:
        return _create_ruleset(None, 0, _VERSION)
    except OSError:
        return 0


def restrict_to(directories: Iterable[int]) -> bool:
    """From now on open, make and change files only below `directories`; what is open stays usable.

    No mount can be made or moved afterwards either. Needs no-new-privileges or CAP_SYS_ADMIN.

    Returns:
        False where the kernel has no Landlock: then nothing has changed.
    """
    version = abi()
    if not version:
        return False
    every = (1 << _RIGHTS.get(version, 16)) - 1
    attributes = _RulesetAttr(every)
    ruleset = _create_ruleset(byref(attributes), sizeof(attributes), 0)
    try:
        for fd in directories:
            rule = _PathBeneathAttr(every, fd)
            _add_rule(ruleset, _PATH_BENEATH, byref(rule), 0)
        _restrict_self(ruleset, 0)
    finally:
        os.close(ruleset)
    return True
