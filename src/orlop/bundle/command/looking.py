"""state, list, ps, features, spec."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from orlop.bundle.command.calling import Call, Verb
from orlop.bundle.command.flags import Flag
from orlop.bundle.records import Record, Status, oci_state
from orlop.bundle.refusal import Refused

__all__ = ["VERBS"]


def state(call: Call) -> int:
    """state: one container as JSON."""
    record, status = call.container()
    _print_json(_document(record, status))
    return 0


def list_containers(call: Call) -> int:
    """list: all of them."""
    style = call.parsed.text("format", "table")
    if style not in ("table", "json"):
        raise Refused("invalid format option")
    if call.is_root_given and not os.path.isdir(call.store.root):
        raise Refused(f"{call.store.root}: no such file or directory")
    rows = []
    for name in call.store.ids():
        record = call.store.load(name)
        rows.append(_document(record, call.store.status(record)))
    if call.parsed.is_set("quiet"):
        _write("".join(f"{row['id']}\n" for row in rows))
    elif style == "json":
        _write(json.dumps(rows or None, separators=(",", ":")))
    else:
        keys = ("id", "pid", "status", "bundle", "created", "owner")
        table = [[key.upper() for key in keys], *([str(row[key]) for key in keys] for row in rows)]
        widths = [max(12, 3 + max(len(line[column]) for line in table)) for column in range(len(keys))]
        for line in table:
            _write(
                "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
            )
    return 0


def processes(call: Call) -> int:
    """ps: the processes of a container, by ps(1) or as a list of ids."""
    style = call.parsed.text("format", "table")
    if style not in ("table", "json"):
        raise Refused("invalid format option")
    record, _ = call.container()
    try:
        pids = record.cgroup().pids()
    except FileNotFoundError:
        pids = []
    if style == "json":
        _write(json.dumps(pids))
        return 0
    lines = _host_ps(call.parsed.words[1:] or ["-ef"], call.environment)
    columns = lines[0].split() if lines else []
    if "PID" not in columns:
        raise Refused("couldn't find PID field in ps output")
    wanted, column = {str(pid) for pid in pids}, columns.index("PID")
    for number, line in enumerate(lines):
        if number == 0 or line.split()[column] in wanted:
            _write(line + "\n")
    return 0


def _host_ps(words: list[str], environment: Mapping[str, str]) -> list[str]:
    """What the host's ps(1) prints; without subprocess, which a container's ancestry must not load."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawnp(
            "ps", ["ps", *words], environment, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)]
        )
    finally:
        os.close(write_end)
    with open(read_end, encoding="utf-8", errors="replace") as file:
        lines = file.read().splitlines()
    _, status = os.waitpid(pid, 0)
    if status:
        raise Refused(f"ps ended with {os.waitstatus_to_exitcode(status)}")
    return lines


def features(_: Call) -> int:
    """features: what this runtime knows, whatever the host can."""
    from orlop.bundle.knowledge import features_document

    _print_json(features_document())
    return 0


def spec(call: Call) -> int:
    """spec: a config.json to begin with."""
    from orlop.bundle.knowledge import starting_config
    from orlop.kernel.cgroup import Mode, detect

    path = os.path.join(call.parsed.text("bundle") or ".", "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            document = starting_config(
                is_rootless=call.parsed.is_set("rootless"),
                has_cgroup_namespace=detect().mode is Mode.V2,  # with v1 it is added by whoever wants it
            )
            json.dump(document, file, indent="\t")
    except FileExistsError:
        raise Refused("File config.json exists. Remove it first") from None
    return 0


def _document(record: Record, status: Status) -> dict[str, Any]:
    """The state with what runc adds, in its order."""
    document = oci_state(record, status)
    found = {key: document[key] for key in ("ociVersion", "id", "pid", "status", "bundle")}
    found |= {"rootfs": record.rootfs, "created": record.created}
    if record.annotations:
        found["annotations"] = record.annotations
    return found | {"owner": record.owner}


def _print_json(document: Any) -> None:
    _write(json.dumps(document, indent=2) + "\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


_FORMAT = Flag(short="f", help="table or json")
VERBS = {
    "state": Verb(state, "print the state of a container"),
    "list": Verb(
        list_containers,
        "list containers",
        "",
        {"format": _FORMAT, "quiet": Flag("flag", "q", "only ids")},
        (0, 0),
    ),
    "ps": Verb(
        processes,
        "list the processes of a container",
        "<container-id> [ps options]",
        {"format": _FORMAT},
        (1, None),
    ),
    "features": Verb(features, "print what this runtime supports", "", {}, (0, 0)),
    "spec": Verb(
        spec,
        "write a config.json",
        "",
        {"bundle": Flag(short="b", help="where"), "rootless": Flag("flag", help="with a user namespace")},
        (0, 0),
    ),
}
