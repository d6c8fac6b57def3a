"""Every operation of the Docker Engine API is served, or named as unsupported with a reason."""

import re
from pathlib import Path

import pytest

from orlop.api.app import build_routes
from orlop.api.docker.unsupported import UNSUPPORTED, NotServed
from orlop.api.routes import Router
from orlop.api.versions import MAX_VERSION
from orlop.base.version import VERSION

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("data") / "engine_api_1_51.txt"
OPERATIONS = [tuple(line.split()) for line in LIST.read_text().splitlines() if line and line[0] != "#"]
ROUTES = build_routes()


@pytest.mark.parametrize(("operation", "method", "path"), OPERATIONS, ids=[row[0] for row in OPERATIONS])
def test_operation_is_routed_under_its_name(operation, method, path):
    concrete = re.sub(r"\{name\}", "host.example/a/b", path) if "/images/" in path else path
    concrete = re.sub(r"\{[a-z]+\}", "abc", concrete)

    route, _, _ = Router(ROUTES).find(method, concrete, MAX_VERSION)

    assert route is not None
    assert route.operation == operation


def test_nothing_is_both_served_and_unsupported():
    served = {route.operation for route in ROUTES[: -len(UNSUPPORTED)]}

    assert served & {row.operation for row in UNSUPPORTED} == set()


def test_the_reference_page_lists_exactly_what_is_unsupported():
    page = (ROOT / "docs" / "reference" / "unsupported.md").read_text()
    rows = set(re.findall(r"^\| `([A-Z]+) ([^`]+)` \| (.+) \|$", page, re.MULTILINE))

    assert rows == {(row.method, row.path.replace(":.*", ""), row.reason) for row in UNSUPPORTED}


def test_unsupported_operations_say_why():
    assert all(row.reason for row in UNSUPPORTED)
    assert NotServed.kind.value == "unsupported"


def test_the_version_is_the_packages():
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
