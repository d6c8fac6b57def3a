"""Per-repository policy: rules that allow, and nothing else allows. Pure.

A rule gives users actions on repositories. Patterns: `*` is anything but a slash, `**` anything;
`{user}` is the name of who asks. Users: names, `@group`, `*` for everybody with an account, and
`anonymous` for everybody at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orlop.base.errors import InvalidInput
from orlop.oci.strictjson import Fields

__all__ = ["ACTIONS", "ANYBODY", "OPEN", "RULE_KEYS", "Policy", "Rule", "accounts_only", "parse_policy"]

ACTIONS = ("pull", "push", "delete")
RULE_KEYS = ("repositories", "users", "actions")
ANYBODY, EVERY_ACCOUNT = "anonymous", "*"
_MAX_RULES = 10_000
_PIECE = re.compile(r"\*\*|\*|\{user\}|[^*{}]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """These users may do these actions on these repositories."""

    repositories: tuple[str, ...]
    users: tuple[str, ...]
    actions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules; `groups` maps a name to its members."""

    rules: tuple[Rule, ...]
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def allowed(self, user: str, repository: str) -> frozenset[str]:
        """What `user` ("" for nobody in particular) may do with a repository."""
        found: set[str] = set()
        for rule in self.rules:
            if not rule.actions <= found and self._is_meant(rule, user) and _matches(rule, user, repository):
                found |= rule.actions
        return frozenset(found)

    def _is_meant(self, rule: Rule, user: str) -> bool:
        names = set(rule.users)
        if ANYBODY in names:
            return True
        if not user:
            return False
        groups = (entry[1:] for entry in names if entry.startswith("@"))
        is_member = any(user in self.groups.get(group, ()) for group in groups)
        is_named = user in names and not user.startswith("@")
        return EVERY_ACCOUNT in names or is_named or is_member


def accounts_only() -> Policy:
    """Everybody with an account may do everything."""
    return Policy((Rule(("**",), (EVERY_ACCOUNT,), frozenset(ACTIONS)),))


OPEN = Policy((Rule(("**",), (ANYBODY,), frozenset(ACTIONS)),))


def parse_policy(fields: Fields) -> Policy:
    """The policy of a configuration file.

    Raises:
        InvalidInput: an unknown action or a pattern that could never match.
    """
    groups = fields.child("groups")
    names = fields.names("groups", 1_000) if groups is not None else ()
    members = {name: frozenset(groups.texts(name, 10_000) or ()) for name in names} if groups else {}
    rules = [_rule(entry) for entry in fields.children("rules", _MAX_RULES, RULE_KEYS)]
    return Policy(tuple(rules), members)


def _rule(fields: Fields) -> Rule:
    actions = tuple(fields.texts("actions", len(ACTIONS) + 1) or ())
    unknown = [action for action in actions if action not in {*ACTIONS, "*"}]
    if unknown or not actions:
        raise InvalidInput(f"{fields.where}: actions are {', '.join(ACTIONS)} or *")
    patterns = tuple(fields.texts("repositories", 1_000) or ())
    users = tuple(fields.texts("users", 10_000) or ())
    if not patterns or not users:
        raise InvalidInput(f"{fields.where}: repositories and users are needed")
    for pattern in patterns:
        _compile(pattern, "user")
    return Rule(patterns, users, frozenset(ACTIONS if "*" in actions else actions))


def _matches(rule: Rule, user: str, repository: str) -> bool:
    return any(_compile(pattern, user).fullmatch(repository) for pattern in rule.repositories)


def _compile(pattern: str, user: str) -> re.Pattern[str]:
    pieces = _PIECE.findall(pattern)
    if "".join(pieces) != pattern:
        raise InvalidInput(f"invalid pattern {pattern[:80]!r}", hint="use *, ** and {user}")
    return re.compile("".join(_translate(pieces, user)))


def _translate(pieces: Iterable[str], user: str) -> Iterable[str]:
    for piece in pieces:
        if piece == "**":
            yield ".*"
        elif piece == "*":
            yield "[^/]*"
        elif piece == "{user}":
            yield re.escape(user) if user else r"(?!)"
        else:
            yield re.escape(piece)
