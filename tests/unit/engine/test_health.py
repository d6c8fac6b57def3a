import pytest

from orlop.engine.health import Verdict, judge, probe_command
from orlop.engine.requests import ContainerConfig, HealthConfig

START = Verdict("starting", 0, has_passed=False)


def after(*codes, retries=3, starting=False):
    verdict = START
    for code in codes:
        verdict = judge(verdict, code, retries, is_starting=starting)
    return verdict


def test_one_success_is_health():
    assert after(0).health == "healthy"


def test_failures_in_a_row_are_illness():
    assert after(1, 1).health == "starting"
    assert after(1, 1, 1).health == "unhealthy"
    assert after(0, 1, 1).health == "healthy"
    assert after(0, 1, 1, 1).health == "unhealthy"
    assert after(1, 1, 1, 0).health == "healthy"


def test_failures_of_the_start_period_do_not_count_until_the_first_success():
    assert after(1, 1, 1, 1, starting=True) == START
    assert after(0, 1, 1, 1, starting=True).health == "unhealthy"


@pytest.mark.parametrize(
    ("test", "wanted"),
    [
        (None, None),
        ((), None),
        (("NONE",), None),
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a | b"), ("/bin/sh", "-c", "a | b")),
    ],
)
def test_the_form_of_a_check_decides_what_runs(test, wanted):
    assert probe_command(HealthConfig(test=test), ContainerConfig()) == wanted


def test_the_image_s_shell_runs_the_shell_form():
    config = ContainerConfig(shell=("/bin/ash", "-x"))

    assert probe_command(HealthConfig(test=("CMD-SHELL", "x")), config) == ("/bin/ash", "-x", "x")
