"""Rows as JSON, history's moments, the tables of `system df -v`."""

import json
import time

import pytest

from orlop.cli.listing import format_rows
from orlop.cli.progress import WorkFailed, show_progress
from orlop.cli.units import rfc3339_local
from orlop.cli.usage_tables import render_all


def test_json_rows_are_go_s():
    text = format_rows("json", [{"Size": "1B", "Digest": "<none>"}], {}, ())

    assert text == '{"Digest":"\\u003cnone\\u003e","Size":"1B"}\n'
    assert json.loads(text) == {"Digest": "<none>", "Size": "1B"}


@pytest.mark.parametrize(("zone", "expected"), [("UTC0", "Z"), ("XXX-05:30", "+05:30"), ("XXX8", "-08:00")])
def test_moments_are_rfc3339_in_the_local_zone(monkeypatch, zone, expected):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        text = rfc3339_local(86400 * 365)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert text.endswith(expected)


def test_a_failed_build_has_the_exit_code_of_its_command(tmp_path):
    with open(tmp_path / "out", "w") as out, pytest.raises(WorkFailed) as caught:
        show_progress([{"error": "no", "errorDetail": {"code": 3, "message": "no"}}], out)

    assert caught.value.exit_code == 3


def test_usage_has_a_table_for_every_kind():
    image = {
        "Id": "sha256:" + "a" * 64,
        "RepoTags": ["h:5/x:1"],
        "Created": 0,
        "Size": 2000,
        "SharedSize": 500,
        "Containers": 2,
    }
    record = {
        "ID": "b" * 25,
        "Type": "regular",
        "Size": 7,
        "CreatedAt": "2026-01-01T00:00:00Z",
        "InUse": False,
    }
    volume = {"Name": "data", "UsageData": {"RefCount": 1, "Size": 3}}
    shown = render_all({"Images": [image], "Containers": [], "Volumes": [volume], "BuildCache": [record]})

    lines = shown.splitlines()
    assert lines[0] == "Images space usage:"
    assert lines[3].split()[:3] == ["h:5/x", "1", "aaaaaaaaaaaa"]
    assert "2kB       500B          1.5kB         2" in lines[3]
    assert "data          1         3B" in lines
    assert "Build cache usage: 7B" in lines
    assert lines[-1].startswith("bbbbbbbbbbbb   regular      7B        ")
