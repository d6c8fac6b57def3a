"""The documentation says what the code does: references, links, paths, shown commands, signatures."""

import ast
import builtins
import importlib
import json
import re
import runpy
import shlex
from itertools import dropwhile
from pathlib import Path

import pytest

from orlop import daemon_flags
from orlop.cli import flags, main, verbs
from orlop.runtime import defaults

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "orlop"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
GUIDES = sorted((DOCS / "guide").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "news").glob("*.md")])
MODULES = sorted(SRC.rglob("*.py"))
SUFFIXES = "py|sql|md|toml|txt"
MADE_LATER = {DOCS / "benchmarks.md"}  # written by `make bench`
OPERATORS = {"|", "||", "&&", ";", ">", ">>", "<", "&"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- references ---


def test_generated_references_are_fresh():
    made = runpy.run_path(str(ROOT / "tools" / "generate-docs"))["pages"]()

    old = [name_of(path) for path, text in made.items() if not path.exists() or path.read_text() != text]

    assert old == [], "run .venv/bin/python tools/generate-docs"


@pytest.mark.parametrize("verb", sorted(verbs.VERBS))
def test_verb_and_its_flags_are_documented(verb):
    page = (REFERENCE / "cli.md").read_text()
    command = main.find_verb([verb])[0]
    grammar = getattr(command, "COMMANDS", {}).get(verb) or command.COMMAND

    section = page.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
    if "flags of [run](#run)" in section:
        section += page.partition("\n## run\n")[2].partition("\n## ")[0]

    assert f"orlop {grammar.usage}" in section
    shown = [flag.name for flag in grammar.flags if not flag.is_hidden]
    assert [name for name in shown if f"`--{name}`" not in section] == []


def test_every_error_code_is_documented():
    page = (REFERENCE / "errors.md").read_text()
    codes = set()
    for path in MODULES:
        codes |= set(
            re.findall(r"^ {4}code(?:: ClassVar\[str\])? = \"([a-z-]+)\"", path.read_text(), re.MULTILINE)
        )

    assert len(codes) > 50
    assert {code for code in codes if f"`{code}`" not in page} == set()


def test_every_flag_of_the_engine_is_documented():
    page = (REFERENCE / "configuration.md").read_text()

    assert [flag.name for flag in daemon_flags.FLAGS if f"`--{flag.name}`" not in page] == []
    assert [flag.key for flag in daemon_flags.FLAGS if flag.key and f"`{flag.key}`" not in page] == []
    assert all(flag.help for flag in daemon_flags.FLAGS if flag.has_effect)


def test_the_guide_names_every_default_of_isolation():
    guide = (DOCS / "guide" / "containers.md").read_text()
    hidden = (*defaults.MASKED_PATHS, *defaults.READ_ONLY_PATHS)
    words = [path.rpartition("/")[2] for path in hidden]

    assert [word for word in (*defaults.CAPABILITIES, *words) if word not in guide] == []


# --- links and paths ---


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        if found in MADE_LATER:
            continue
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)

    assert broken == []


def exists(word: str, page: Path) -> bool:
    """Below the root, the package, any package of it, or beside the page; a bare name anywhere in the tree."""
    roots = (ROOT, SRC, page.parent, *(path for path in SRC.iterdir() if path.is_dir()))
    if any((root / word).exists() for root in roots):
        return True
    return "/" not in word and any(path.name == word for path in MODULES)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GUIDES], ids=name_of)
def test_paths_that_are_named_exist(page):
    words = set(re.findall(r"`([\w./-]+)`", page.read_text()))
    wanted = re.compile(rf"(?:(?:src|tests|docs|tools|bench)/[\w./-]+|[\w./-]+\.(?:{SUFFIXES}))\Z")

    assert (
        sorted(word for word in words if wanted.match(word) and not exists(word.removeprefix("orlop/"), page))
        == []
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_pages_that_the_code_names_exist(path):
    named = set(re.findall(r"\b(docs/[\w/-]+\.md)\b", path.read_text()))

    assert {page for page in named if not (ROOT / page).exists()} == set()


def test_the_index_of_the_internals_names_every_page():
    index = DOCS / "internals" / "README.md"
    listed = set(re.findall(r"^\| \[([\w-]+\.md)\]", index.read_text(), re.MULTILINE))

    assert listed == {page.name for page in index.parent.glob("*.md")} - {"README.md"}


# --- what guides show ---


def shown_commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line[:2] in {"$ ", "# "}]


def split_commands(line: str) -> list[list[str]]:
    """The commands of a shell line; what `$(...)` holds is one, too."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in OPERATORS:
            commands.append([])
        elif word.startswith("$(") and word.endswith(")"):
            commands += [*split_commands(word[2:-1]), []]
        else:
            commands[-1].append(word)
    return [list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), command)) for command in commands]


def check_command(words: list[str]) -> None:
    if words[0] == "orlopd":
        daemon_flags.parse_flags(words[1:])
    elif words[0] == "orlop":
        rest = list(flags.parse(main._GLOBAL, words[1:]).args)
        module, verb, rest = main.find_verb(rest)
        flags.parse(getattr(module, "COMMANDS", {}).get(verb) or module.COMMAND, rest)


@pytest.mark.parametrize("page", [ROOT / "README.md", *GUIDES], ids=name_of)
def test_shown_commands_are_known(page):
    lines = shown_commands(page)

    for line in lines:
        for words in filter(None, split_commands(line)):
            check_command(words)


def test_shown_commands_are_found():
    assert split_commands('eval "$(orlop completion bash)"')[1] == ["orlop", "completion", "bash"]
    assert sum(len(shown_commands(page)) for page in GUIDES) > 40


def test_the_shown_daemon_json_is_accepted():
    guide = (DOCS / "guide" / "engine.md").read_text()
    (text,) = re.findall(r"^```json\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)

    settings = daemon_flags.resolve({}, daemon_flags.parse_file(text, "daemon.json"), "daemon.json")

    assert settings.insecure_registries == tuple(json.loads(text)["insecure-registries"])


# --- seams ---

SEAMS = DOCS / "internals" / "seams.md"
ANY = "**"
PROSE = {
    "async",
    "await",
    "coroutine",
    "fn",
    "noun",
    "orlop",
    "py",
}  # words in quotes that are no names of ours


def parameters_by_name() -> dict[str, set[str]]:
    """Every name that the tree defines -> the parameters that a function or class of this name takes."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        found.setdefault(path.stem, set())
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    taken = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                    found.setdefault(node.name, set()).update(item.arg for item in taken)
                    if node.args.kwarg:
                        found[node.name].add(ANY)
                case ast.ClassDef():
                    found.setdefault(node.name, set()).update(class_parameters(node))
                case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                    found.setdefault(name, set())
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    found.setdefault(name, set())
    return found


def class_parameters(node: ast.ClassDef) -> set[str]:
    """Fields of a dataclass, or what `__init__` takes."""
    fields = (item.target for item in node.body if isinstance(item, ast.AnnAssign))
    names = {field.id for field in fields if isinstance(field, ast.Name)}
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            names |= {argument.arg for argument in (*item.args.args, *item.args.kwonlyargs)}
    return names


def named_in_seams() -> dict[str, set[str]]:
    """Names in quotes before an arrow -> the parameters shown with `=`."""
    name = re.compile(r"(?<![\w=\"/.])(?:\w+\.)*([A-Za-z_]\w*)(?!\w*=)(?:\(([^()]*)\))?")
    found: dict[str, set[str]] = {}
    for quoted in re.findall(r"`([^`]+)`", SEAMS.read_text()):
        for word, inside in name.findall(quoted.partition(" -> ")[0]):
            found.setdefault(word, set()).update(re.findall(r"(\w+)=", inside))
    return found


def test_what_the_seams_name_exists():
    defined = parameters_by_name()

    missing = {name for name in named_in_seams() if name not in defined and not hasattr(builtins, name)}

    assert missing - PROSE - {"Callable"} == set()


def test_parameters_that_the_seams_name_exist():
    defined = parameters_by_name()

    known = {name: shown for name, shown in named_in_seams().items() if ANY not in defined.get(name, {ANY})}
    wrong = {name: shown - defined[name] for name, shown in known.items() if not shown <= defined[name]}

    assert wrong == {}


def test_qualified_names_in_the_seams_lead_somewhere():
    packages = {path.name for path in SRC.iterdir() if path.is_dir()}

    for dotted in set(re.findall(r"`((?:\w+\.)+\w+)", SEAMS.read_text())):
        head, *rest = dotted.split(".")
        if head in packages and (SRC / head / f"{rest[0]}.py").exists():
            value = importlib.import_module(f"orlop.{head}.{rest[0]}")
            for word in rest[1:]:
                value = getattr(value, word)
