"""The policy of the registry server: what is not allowed is refused, and nothing else is."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.registryd.access.policy import ACTIONS, OPEN, Policy, accounts_only
from orlop.registryd.settings import RegistrySettings, Upstream, parse_settings_file


def policy(*rules, **groups) -> Policy:
    document = {"policy": {"rules": list(rules), "groups": groups}}
    return parse_settings_file(json.dumps(document).encode())["policy"]


def rule(repositories, users, actions):
    return {"repositories": repositories, "users": users, "actions": actions}


def test_no_rule_allows_nothing():
    assert policy().allowed("alice", "a") == frozenset()


def test_rules_add_up():
    both = policy(rule(["**"], ["anonymous"], ["pull"]), rule(["team/*"], ["alice"], ["push"]))

    assert both.allowed("", "team/app") == {"pull"}
    assert both.allowed("alice", "team/app") == {"pull", "push"}
    assert both.allowed("alice", "team/app/deep") == {"pull"}
    assert both.allowed("bob", "team/app") == {"pull"}


def test_a_star_stays_within_a_component():
    one = policy(rule(["team/*"], ["*"], ["pull"]))

    assert one.allowed("bob", "team/x") == {"pull"}
    for other in ("team", "team/x/y", "xteam/x", "teams/x", "a/team/x"):
        assert one.allowed("bob", other) == frozenset()


def test_a_home_belongs_to_its_user():
    homes = policy(rule(["home/{user}/**"], ["*"], ["*"]))

    assert homes.allowed("alice", "home/alice/x/y") == set(ACTIONS)
    assert homes.allowed("alice", "home/bob/x") == frozenset()
    assert homes.allowed("", "home//x") == frozenset()
    assert homes.allowed(".*", "home/alice/x") == frozenset()


def test_groups_have_members():
    grouped = policy(rule(["a"], ["@dev"], ["push"]), dev=["alice"])

    assert grouped.allowed("alice", "a") == {"push"}
    assert grouped.allowed("bob", "a") == frozenset()
    assert grouped.allowed("@dev", "a") == frozenset()


@pytest.mark.parametrize(
    "broken",
    [
        {"rules": [rule(["a"], ["b"], ["write"])]},
        {"rules": [rule([], ["b"], ["pull"])]},
        {"rules": [rule(["a"], [], ["pull"])]},
        {"rules": [rule(["a"], ["b"], [])]},
        {"rules": [rule(["a{x}"], ["b"], ["pull"])]},
        {"rules": [{**rule(["a"], ["b"], ["pull"]), "deny": True}]},
        {"rule": []},
    ],
)
def test_a_broken_policy_is_an_error_not_an_open_door(broken):
    with pytest.raises(InvalidInput):
        parse_settings_file(json.dumps({"policy": broken}).encode())


def test_the_defaults():
    assert OPEN.allowed("", "x/y") == set(ACTIONS)
    assert accounts_only().allowed("", "x") == frozenset()
    assert accounts_only().allowed("bob", "x/y") == set(ACTIONS)


@given(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,3}", fullmatch=True), st.text(max_size=10))
@settings(max_examples=100)
def test_an_exact_pattern_matches_itself_alone(name, user):
    exact = policy(rule([name], ["*"], ["pull"]))

    assert exact.allowed(user, name) == (frozenset({"pull"}) if user else frozenset())
    assert exact.allowed(user, name + "x") == frozenset()


def test_the_longest_prefix_of_an_upstream_wins():
    settings_ = RegistrySettings(
        upstreams=(Upstream("", "docker.io"), Upstream("ghcr.io", "ghcr.io"), Upstream("ghcr.io/me", "other"))
    )

    assert [settings_.upstream_of(name)[0].registry for name in ("a", "ghcr.io/x", "ghcr.io/me/y", "ghcr.iox/a")] == [
        "docker.io", "ghcr.io", "other", "docker.io",
    ]  # fmt: skip
    assert settings_.upstream_of("ghcr.io/x/y")[1] == "x/y"
