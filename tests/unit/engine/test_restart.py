import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.requests import RestartPolicy
from orlop.engine.restart import check_policy, next_delay_s, shall_restart, shall_start_with_engine


@pytest.mark.parametrize(
    ("policy", "code", "count", "stopped", "wanted"),
    [
        (RestartPolicy("no"), 1, 0, False, False),
        (RestartPolicy("always"), 0, 9, False, True),
        (RestartPolicy("always"), 0, 0, True, False),
        (RestartPolicy("unless-stopped"), 0, 0, False, True),
        (RestartPolicy("on-failure"), 0, 0, False, False),
        (RestartPolicy("on-failure"), 1, 100, False, True),
        (RestartPolicy("on-failure", 2), 1, 1, False, True),
        (RestartPolicy("on-failure", 2), 1, 2, False, False),
    ],
)
def test_an_exit_is_followed_by_a_restart_when_the_policy_says_so(policy, code, count, stopped, wanted):
    assert shall_restart(policy, code, count, was_stopped=stopped) is wanted


@pytest.mark.parametrize(
    ("name", "facts", "wanted"),
    [
        ("always", {"has_run": True, "was_stopped": True, "was_active": False}, True),
        ("always", {"has_run": False, "was_stopped": False, "was_active": False}, False),
        ("unless-stopped", {"has_run": True, "was_stopped": True, "was_active": False}, False),
        ("unless-stopped", {"has_run": True, "was_stopped": False, "was_active": False}, True),
        ("on-failure", {"has_run": True, "was_stopped": False, "was_active": True}, True),
        ("no", {"has_run": True, "was_stopped": False, "was_active": True}, False),
    ],
)
def test_what_starts_with_the_engine(name, facts, wanted):
    assert shall_start_with_engine(RestartPolicy(name), 1, **facts) is wanted


def test_the_delay_doubles_up_to_a_minute_and_begins_anew_after_a_good_run():
    delay, seen = 0.0, []
    for _ in range(12):
        delay = next_delay_s(delay, run_s=0.1)
        seen.append(delay)

    assert seen[:4] == [0.1, 0.2, 0.4, 0.8]
    assert seen[-1] == 60.0
    assert next_delay_s(60.0, run_s=11) == 0.1


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (RestartPolicy("sometimes"), "unknown policy 'sometimes'"),
        (RestartPolicy("always", 3), "maximum retry count can only be used with 'on-failure'"),
        (RestartPolicy("on-failure", -1), "maximum retry count cannot be negative"),
    ],
)
def test_wrong_policies_are_refused(policy, text):
    with pytest.raises(InvalidInput, match=text):
        check_policy(policy)
