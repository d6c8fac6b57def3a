"""`orlop completion bash|zsh|fish`: scripts made from the same tables that parse the words."""

from __future__ import annotations

import importlib

from orlop.cli.context import Context
from orlop.cli.flags import Command, Parsed, UsageError
from orlop.cli.verbs import GROUPS, VERBS

COMMAND = Command(
    "completion SHELL", "Print a completion script for bash, zsh or fish", min_args=1, max_args=1
)

_NAMES = {
    "ps -a": (
        "attach",
        "commit",
        "exec",
        "inspect",
        "kill",
        "logs",
        "restart",
        "rm",
        "start",
        "stop",
        "wait",
    ),
    "images": ("create", "history", "push", "rmi", "run", "save", "tag"),
}
_BASH = """_orlop() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{verbs}" -- "$word"))
        return
    fi
    case "$word:$verb" in
{cases}
    esac
}}
complete -o default -F _orlop orlop
"""
_ZSH = "#compdef orlop\nautoload -U +X bashcompinit && bashcompinit\n"


def run(context: Context, parsed: Parsed) -> int:
    """Print the script."""
    shell = parsed.args[0]
    if shell not in {"bash", "zsh", "fish"}:
        raise UsageError(f"unknown shell {shell!r}", hint="bash, zsh or fish")
    if shell == "fish":
        context.print("\n".join(_fish()))
    else:
        context.print((_ZSH if shell == "zsh" else "") + _bash(), end="")
    return 0


def _flags(verb: str) -> list[tuple[str, str]]:
    module = importlib.import_module(f"orlop.cli.{VERBS[verb][0]}_verb")
    command: Command = getattr(module, "COMMANDS", {}).get(verb) or module.COMMAND
    return [(flag.name, flag.text) for flag in command.flags if not flag.is_hidden]


def _bash() -> str:
    cases = []
    for verb in VERBS:
        words = " ".join(f"--{name}" for name, _ in _flags(verb))
        cases.append(f'        -*:{verb}) COMPREPLY=($(compgen -W "{words}" -- "$word")) ;;')
    for listing, verbs in _NAMES.items():
        field = "{{.Names}}" if listing.startswith("ps") else "{{.Repository}}:{{.Tag}}"
        listed = f"$(orlop {listing} --format '{field}' 2>/dev/null)"
        cases.append(f'        *:{"|*:".join(verbs)}) COMPREPLY=($(compgen -W "{listed}" -- "$word")) ;;')
    return _BASH.format(verbs=" ".join([*VERBS, *GROUPS]), cases="\n".join(cases))


def _fish() -> list[str]:
    lines = []
    for verb, (_, text) in VERBS.items():
        lines.append(f"complete -c orlop -f -n __fish_use_subcommand -a {verb} -d '{_plain(text)}'")
        seen = f"complete -c orlop -n '__fish_seen_subcommand_from {verb}'"
        lines += [f"{seen} -l {name} -d '{_plain(help_line)}'" for name, help_line in _flags(verb)]
    return lines


def _plain(text: str) -> str:
    return text.replace("'", "")
