"""The part of Go's text/template that people give to `--format`.

Actions: fields and chains (`.State.Status`, `$x.Name`), `index`, `json`, `len`, `join`, `upper`,
`lower`, `title`, `split`, `println`, `printf`, `eq ne lt le gt ge and or not`, pipes, parentheses,
`if/else if/else/end`, `range/else/end` with `$i, $v :=`, `with`, assignments, comments and
`{{-`/`-}}` trimming. Values are JSON values; maps are walked in key order.

Spec: Go standard library, text/template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from orlop.base.errors import InvalidInput

__all__ = ["Template", "TemplateError"]


class TemplateError(InvalidInput):
    """The template does not parse, or names a field that does not exist."""

    code = "template"


_ACTION = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|:=|[|(),]|[^\s|(),]+)')
_MISSING = object()


def _go_string(value: Any) -> str:
    match value:
        case None:
            return "<no value>"
        case bool():
            return "true" if value else "false"
        case list():
            return "[" + " ".join(_go_string(item) for item in value) + "]"
        case dict():
            return "map[" + " ".join(f"{key}:{_go_string(value[key])}" for key in sorted(value)) + "]"
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)


def _truth(value: Any) -> bool:
    return bool(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, list) and not 0 <= key < len(value):
            raise TemplateError(f"template: index out of range: {key}")
        value = value[key] if isinstance(value, list) else (value or {}).get(key)
    return value


def _printf(form: str, *values: Any) -> str:
    shown = [_go_string(value) if not isinstance(value, int | float) else value for value in values]
    try:
        return re.sub(r"%[vT]", "%s", form).replace("%q", '"%s"') % tuple(shown)
    except (TypeError, ValueError) as error:
        raise TemplateError(f"template: printf: {error}") from error


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False),
    "len": len,
    "index": _index,
    "join": lambda values, sep: sep.join(map(_go_string, values or [])),
    "split": lambda value, sep: value.split(sep),
    "upper": lambda value: _go_string(value).upper(),
    "lower": lambda value: _go_string(value).lower(),
    "title": lambda value: _go_string(value).title(),
    "println": lambda *values: " ".join(map(_go_string, values)) + "\n",
    "print": lambda *values: "".join(map(_go_string, values)),
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "and": lambda *values: next((value for value in values if not _truth(value)), values[-1]),
    "or": lambda *values: next((value for value in values if _truth(value)), values[-1]),
    "not": lambda value: not _truth(value),
}


class _Scope:
    def __init__(self, root: Any) -> None:
        self.dot = root
        self.names: dict[str, Any] = {"$": root}

    def child(self, dot: Any) -> _Scope:
        scope = _Scope(dot)
        scope.names = dict(self.names)
        return scope


def _field(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        return next((value[key] for key in value if key.lower() == name.lower()), None)
    if value is None:
        return None
    raise TemplateError(f"template: can't evaluate field {name} in type {type(value).__name__}")


class _Pipeline:
    """One action's expression: commands joined by `|`."""

    def __init__(self, text: str) -> None:
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]
        self._text = text
        self._at = 0

    def evaluate(self, scope: _Scope) -> Any:
        self._at = 0
        value = self._pipe(scope)
        if self._at != len(self._tokens):
            raise TemplateError(f"template: unexpected {self._tokens[self._at]!r} in {self._text!r}")
        return value

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _pipe(self, scope: _Scope) -> Any:
        value = self._command(scope, _MISSING)
        while self._peek() == "|":
            self._at += 1
            value = self._command(scope, value)
        return value

    def _command(self, scope: _Scope, piped: Any) -> Any:
        token = self._peek()
        if token is None:
            raise TemplateError(f"template: missing value in {self._text!r}")
        arguments: list[Any] = []
        function = _FUNCTIONS.get(token)
        if function is not None:
            self._at += 1
        while (token := self._peek()) is not None and token not in {"|", ")"}:
            arguments.append(self._operand(scope))
        if piped is not _MISSING:
            arguments.append(piped)
        if function is None:
            if len(arguments) != 1:
                raise TemplateError(f"template: can't give arguments to a value in {self._text!r}")
            return arguments[0]
        try:
            return function(*arguments)
        except TypeError as error:
            raise TemplateError(f"template: {self._text}: {error}") from error

    def _operand(self, scope: _Scope) -> Any:
        token = self._tokens[self._at]
        self._at += 1
        if token[0] == "(":
            value = self._pipe(scope)
            if self._peek() != ")":
                raise TemplateError(f"template: unclosed parenthesis in {self._text!r}")
            self._at += 1
            if (tail := self._peek()) is not None and tail.startswith("."):
                self._at += 1
                return _chain(value, tail)
            return value
        return _literal(token, scope)


def _literal(token: str, scope: _Scope) -> Any:
    if token[0] == '"':
        return json.loads(token)
    if token[0] == "`":
        return token[1:-1]
    if token[0] == "$":
        name, dot, rest = token.partition(".")
        if name not in scope.names:
            raise TemplateError(f"template: undefined variable {name!r}")
        return _chain(scope.names[name], dot + rest)
    if token[0] == ".":
        return _chain(scope.dot, token)
    if token in {"true", "false", "nil"}:
        return {"true": True, "false": False}.get(token)
    try:
        return int(token, 0)
    except ValueError:
        raise TemplateError(f'template: function "{token}" not defined') from None


def _chain(value: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        value = _field(value, name)
    return value


Node = tuple[str, Any, Any, Any]  # kind, pipeline or text, body, else-body


class Template:
    """A parsed template; `render` may be called for many values.

    Raises:
        TemplateError: from the constructor, when the text does not parse.
    """

    def __init__(self, text: str) -> None:
        self._pieces = _split(text)
        self._at = 0
        self._nodes = self._parse(top=True)

    def render(self, value: Any) -> str:
        """The text for one value.

        Raises:
            TemplateError: a field of something that has no fields, a wrong argument.
        """
        out: list[str] = []
        _render(self._nodes, _Scope(value), out)
        return "".join(out)

    def _parse(self, *, top: bool = False) -> list[Node]:
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            kind, text = self._pieces[self._at]
            word = text.split(None, 1)[0] if kind == "action" and text else ""
            if word in {"end", "else"}:
                if top:
                    raise TemplateError(f"template: unexpected {{{{{word}}}}}")
                return nodes
            self._at += 1
            if kind == "text":
                nodes.append(("text", text, None, None))
            elif word in {"if", "range", "with"}:
                nodes.append(self._block(word, text[len(word) :].strip()))
            elif not text.startswith("/*"):
                nodes.append(("value", text, None, None))
        if not top:
            raise TemplateError("template: unexpected EOF: missing {{end}}")
        return nodes

    def _block(self, word: str, text: str) -> Node:
        body = self._parse()
        other: list[Node] = []
        kind, closing = self._pieces[self._at]
        self._at += 1
        if kind == "action" and closing.startswith("else"):
            rest = closing[4:].strip()
            if rest:  # `else if X`, `else with X`: a block inside that shares our end
                other = [self._block(rest.split(None, 1)[0], rest.split(None, 1)[1])]
            else:
                other = self._parse()
                self._at += 1
        return (word, text, body, other)


def _split(text: str) -> list[tuple[str, str]]:
    pieces: list[tuple[str, str]] = []
    at, trim = 0, False
    for match in _ACTION.finditer(text):
        plain = text[at : match.start()]
        plain = plain.lstrip() if trim else plain
        pieces.append(("text", plain.rstrip() if match[1] else plain))
        pieces.append(("action", match[2]))
        at, trim = match.end(), match[3] is not None
    pieces.append(("text", text[at:].lstrip() if trim else text[at:]))
    return [piece for piece in pieces if piece[0] == "action" or piece[1]]


def _assign(text: str, scope: _Scope) -> tuple[list[str], Any]:
    names, found, rest = text.partition(":=")
    if not found:
        return [], _Pipeline(text).evaluate(scope)
    return [name.strip() for name in names.split(",")], _Pipeline(rest).evaluate(scope)


def _render(nodes: Sequence[Node], scope: _Scope, out: list[str]) -> None:
    for kind, text, body, other in nodes:
        if kind == "text":
            out.append(text)
            continue
        names, value = _assign(text, scope)
        if kind == "value":
            if names:
                scope.names[names[0]] = value
            else:
                out.append(_go_string(value))
        elif kind == "range":
            _render_range(names, value, (body, other), scope, out)
        elif _truth(value):
            inner = scope.child(value if kind == "with" else scope.dot)
            inner.names |= dict.fromkeys(names, value)
            _render(body, inner, out)
        else:
            _render(other, scope, out)


def _render_range(
    names: Sequence[str], value: Any, bodies: tuple[list[Node], list[Node]], scope: _Scope, out: list[str]
) -> None:
    if isinstance(value, dict):
        items = [(key, value[key]) for key in sorted(value)]
    else:
        items = list(enumerate(value or []))
    if not items:
        _render(bodies[1], scope, out)
    for key, item in items:
        inner = scope.child(item)
        if names:
            inner.names |= dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=True))
        _render(bodies[0], inner, out)
