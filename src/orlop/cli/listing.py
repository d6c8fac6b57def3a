"""What all lists share: `--filter`, `--format`, tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orlop.cli.table import render

__all__ = ["filters_query", "format_rows"]


def filters_query(words: list[str]) -> str | None:
    """`--filter name=value` words as the API's JSON; None when there are none.

    Raises:
        UsageError: a word without `=`.
    """
    if not words:
        return None
    import json

    from orlop.cli.flags import UsageError

    chosen: dict[str, dict[str, bool]] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"invalid filter {word!r}", hint="use name=value")
        chosen.setdefault(name.strip().lower(), {})[value.strip()] = True
    return json.dumps(chosen)


def _go_json(row: Mapping[str, Any]) -> str:
    """As docker prints a row: keys sorted, what could end a script element escaped."""
    import json

    text = json.dumps(row, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def format_rows(
    template: str, rows: Sequence[Mapping[str, Any]], headings: Mapping[str, str], default: Sequence[str]
) -> str:
    """Rows as a table of the default columns, as JSON lines, or through a template.

    Args:
        template: "", "table", "json", a Go template, or `table` and a template.
        rows: values by field name.
        headings: field name -> heading, for `table TEMPLATE`.
        default: fields of the plain table.
    """
    if template in {"", "table"}:
        return render(
            [headings[name] for name in default], [[str(row[name]) for name in default] for row in rows]
        )
    if template == "json":
        return "".join(_go_json(row) + "\n" for row in rows)
    from orlop.cli.gotemplate import Template

    is_table = template.startswith("table ")
    text = template.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
    compiled = Template(text)
    lines = [compiled.render(row) for row in rows]
    if not is_table:
        return "".join(line + "\n" for line in lines)
    first = compiled.render(headings).split("\t")
    return render(first, [line.split("\t") for line in lines])
