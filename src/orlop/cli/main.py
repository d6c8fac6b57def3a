"""The `orlop` command: global flags, then one verb whose module is imported only now."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from orlop.base.errors import OrlopError
from orlop.cli.context import Context
from orlop.cli.flags import Command, Flag, HelpRequested, UsageError, help_text, parse
from orlop.cli.verbs import ALIASES, GROUPS, VERBS

__all__ = ["find_verb", "main"]

from orlop.base.version import VERSION

_GLOBAL = Command(
    "[OPTIONS] COMMAND [ARG...]",
    "A complete container platform",
    (
        Flag("host", "H", text="Engine socket to connect to"),
        Flag("context", "c", text="Name of the docker context that holds the engine's address"),
        Flag("debug", "D", "bool", text="Show a traceback when something breaks"),
        Flag("version", "v", "bool", text="Print version information and quit"),
    ),
    is_interspersed=False,
)
_USAGE = 125
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the result is the process's exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    context = Context(os.environ)
    is_debug = False
    try:
        parsed = parse(_GLOBAL, words)
        is_debug = parsed["debug"]
        if parsed["version"]:
            context.print(f"Orlop version {VERSION}")
            return 0
        if not parsed.args:
            context.print(_overview(), end="")
            return 0
        context.host, context.docker_context = parsed["host"], parsed["context"]
        return _run_verb(context, list(parsed.args))
    except HelpRequested:
        context.print(_overview(), end="")
        return 0
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the reader left: say nothing more at exit
        return 0
    except OrlopError as error:
        if is_debug:
            raise
        context.warn(f"orlop: {error}")
        return _USAGE if isinstance(error, UsageError) else 1
    except OSError as error:
        if is_debug:
            raise
        context.warn(f"orlop: the connection to the engine broke: {(error.strerror or str(error)).lower()}")
        return 1


def find_verb(words: Sequence[str]) -> tuple[ModuleType, str, list[str]]:
    """The verb's module, its name, and the words after it.

    Raises:
        UsageError: no such verb; the hint names the nearest.
    """
    name, rest = words[0], list(words[1:])
    if name in GROUPS and rest and rest[0] in GROUPS[name]:
        name, rest = GROUPS[name][rest[0]], rest[1:]
    name = ALIASES.get(name, name)
    if name not in VERBS:
        import difflib

        near = difflib.get_close_matches(name, VERBS, 1)
        hint = f"did you mean '{near[0]}'?" if near else "see 'orlop --help'"
        raise UsageError(f"'{name}' is not an orlop command", hint=hint)
    return importlib.import_module(f"orlop.cli.{VERBS[name][0]}_verb"), name, rest


def _run_verb(context: Context, words: list[str]) -> int:
    module, name, rest = find_verb(words)
    command: Command = getattr(module, "COMMANDS", {}).get(name) or module.COMMAND
    try:
        parsed = parse(command, rest)
    except HelpRequested:
        context.print(help_text(command), end="")
        return 0
    code = module.run(context, parsed, name) if hasattr(module, "COMMANDS") else module.run(context, parsed)
    context.out.flush()
    return int(code or 0)


def _overview() -> str:
    width = max(map(len, VERBS)) + 3
    verbs = "".join(f"  {name:<{width}}{text}\n" for name, (_, text) in sorted(VERBS.items()))
    return help_text(_GLOBAL) + f"\nCommands:\n{verbs}\nRun 'orlop COMMAND --help' for more.\n"


if __name__ == "__main__":
    sys.exit(main())
