"""`orlop doctor` against a running engine, and where there is none."""

import json
import os

import pytest

pytestmark = pytest.mark.system


def test_doctor_finds_a_host_that_runs_containers(engine):
    done = engine.orlop("doctor", "--format", "json", check=False)
    found = json.loads(done.stdout)
    by_name = {item["Name"]: item for item in found["Findings"]}

    assert done.returncode == 0
    assert found["CanRun"]
    assert by_name["engine"]["Status"] == by_name["openat2"]["Status"] == "ok"
    assert by_name["seccomp"]["Status"] == "ok"
    has_apparmor = os.path.isdir("/sys/kernel/security/apparmor")
    assert (by_name["AppArmor"]["Status"] == "ok") == has_apparmor


def test_doctor_says_what_follows_and_what_helps(engine):
    shown = engine.orlop("doctor").stdout

    assert "ok       kernel" in shown
    assert "limited or missing" in shown.splitlines()[-1]
    if "missing  AppArmor" in shown:
        assert "so: no profile beside capabilities and seccomp" in shown


def test_doctor_without_an_engine_is_a_finding(engine):
    done = engine.orlop("-H", f"unix://{engine.root}/nobody", "doctor", "--format", "json", check=False)
    found = json.loads(done.stdout)

    assert done.returncode == 1
    assert not found["CanRun"]
    assert [(item["Name"], item["Status"]) for item in found["Findings"]] == [("engine", "missing")]
    assert found["Findings"][0]["Consequence"]
