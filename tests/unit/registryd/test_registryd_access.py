"""Accounts, tokens and the gate of the registry server."""

import asyncio
import base64
import json

import pytest

from orlop.aio.http_messages import MemoryBody, Peer, ServerRequest
from orlop.base.clock import ManualClock
from orlop.base.errors import InvalidInput
from orlop.registryd.access.accounts import Accounts, parse_htpasswd
from orlop.registryd.access.gate import Gate, Visitor
from orlop.registryd.access.policy import Policy, Rule
from orlop.registryd.access.tokens import Access, Claims, Tokens, parse_scope
from orlop.registryd.problems import Problem, Word

HASH = "$2b$04$" + "a" * 53
POLICY = Policy(
    (
        Rule(("public/*",), ("anonymous",), frozenset({"pull"})),
        Rule(("team/*",), ("alice",), frozenset({"pull", "push"})),
    )
)


class FakeBcrypt:
    """Knows one password; counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, password, stored):
        self.asked += 1
        return password == b"secret" and stored == HASH.encode()


@pytest.fixture
def accounts(tmp_path):
    (tmp_path / "htpasswd").write_text(f"# people\nalice:{HASH}\n\nbob:{HASH}\n")
    return Accounts(str(tmp_path / "htpasswd"), FakeBcrypt(), ManualClock())


def request(authorization="", host="registry.test:5000"):
    headers = {"host": host} | ({"authorization": authorization} if authorization else {})
    return ServerRequest("GET", "/v2/", headers, MemoryBody(), Peer("tcp", "1.2.3.4:5"))


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def run(work):
    return asyncio.run(work)


# accounts


def test_a_right_password_is_remembered_for_a_while(accounts):
    assert run(accounts.verify("alice", "secret"))
    assert run(accounts.verify("alice", "secret"))
    assert accounts._check.asked == 1
    accounts._clock.advance(301)
    assert run(accounts.verify("alice", "secret"))
    assert accounts._check.asked == 2


def test_a_wrong_user_costs_as_much_as_a_wrong_password(accounts):
    assert not run(accounts.verify("alice", "wrong"))
    assert not run(accounts.verify("nobody", "secret"))
    assert accounts._check.asked == 2


def test_a_changed_file_counts_at_once(accounts, tmp_path):
    assert run(accounts.verify("alice", "secret"))
    (tmp_path / "htpasswd").write_text(f"bob:{HASH}\n")
    assert not run(accounts.verify("alice", "secret"))
    (tmp_path / "htpasswd").write_text("broken")
    assert accounts.has("bob")


@pytest.mark.parametrize(
    "line", ["alice", "alice:plain", "alice:$apr1$x", "alice:{SHA}x", f":{HASH}", f"@g:{HASH}", f"*:{HASH}"]
)
def test_a_line_that_is_no_account_is_an_error(line):
    with pytest.raises(InvalidInput, match="line 2"):
        parse_htpasswd(f"# first\n{line}\n".encode())


# tokens


def test_a_token_says_what_was_put_in():
    tokens = Tokens(b"k" * 32, "registry", ManualClock())
    claims = Claims("alice", "access", (Access("repository", "a/b", frozenset({"pull"})),))

    token, _, ttl = tokens.make(claims)

    assert tokens.read(token, "access") == claims
    assert claims.allowed("repository", "a/b") == {"pull"}
    assert claims.allowed("repository", "a") == frozenset()
    assert tokens.read(token, "refresh") is None
    tokens._clock.advance(ttl)
    assert tokens.read(token, "access") is None


def test_a_token_of_another_key_service_or_algorithm_is_nothing():
    clock = ManualClock()
    tokens = Tokens(b"k" * 32, "registry", clock)
    token = tokens.make(Claims("alice", "access"))[0]
    header, payload, signature = token.split(".")
    none = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).rstrip(b"=").decode()
    signed_none = f"{none}.{payload}"

    assert Tokens(b"x" * 32, "registry", clock).read(token, "access") is None
    assert Tokens(b"k" * 32, "other", clock).read(token, "access") is None
    for wrong in (
        "", ".", "..", f"{none}.{payload}.", f"{signed_none}.{tokens._sign(signed_none)}", token[:-1],
        f"{header}.{payload}", f"{header}.{payload}.{signature}x", token + "é", "a" * 20_000,
    ):  # fmt: skip
        assert tokens.read(wrong, "access") is None


def test_scopes_are_read_strictly():
    assert parse_scope(
        ["repository:a/b:pull,push", "repository:../x:pull", "nonsense", "repository:a:fly"]
    ) == [
        Access("repository", "a/b", frozenset({"pull", "push"})),
        Access("repository", "a", frozenset()),
    ]


# the gate


def test_without_accounts_everybody_is_nobody():
    gate = Gate(POLICY, None, None, "s", "")

    assert run(gate.identify(request(basic("alice", "x")))) == Visitor()
    assert gate.refuse(Visitor(), request(), "team/x", "push").word is Word.DENIED


def test_basic(accounts):
    gate = Gate(POLICY, accounts, None, "s", "")

    assert run(gate.identify(request(basic("alice", "secret")))) == Visitor("alice")
    assert gate.allowed(Visitor("alice"), "team/x") == {"pull", "push"}
    assert gate.allowed(Visitor(), "public/x") == {"pull"}
    for wrong in (basic("alice", "x"), "Basic !!!", "Basic", "Bearer x", "Digest x", basic("", "x")):
        with pytest.raises(Problem) as caught:
            run(gate.identify(request(wrong)))
        assert caught.value.headers == (("WWW-Authenticate", 'Basic realm="s"'),)
    assert run(gate.identify(request(basic("", "")))) == Visitor()
    assert gate.refuse(Visitor(), request(), "team/x", "push").status == 401
    assert gate.refuse(Visitor("bob"), request(), "team/x", "push").status == 403


def test_a_token_carries_no_more_than_the_policy_allows(accounts):
    gate = Gate(POLICY, accounts, Tokens(b"k" * 32, "s", ManualClock()), "s", "")
    form = {"scope": ["repository:team/x:pull,push,delete repository:other:pull", "repository:public/y:pull"]}

    answer = run(gate.grant(request(basic("alice", "secret")), form))
    visitor = run(gate.identify(request(f"Bearer {answer['token']}")))

    assert visitor.user == "alice"
    assert gate.allowed(visitor, "team/x") == {"pull", "push"}
    assert gate.allowed(visitor, "other") == frozenset()
    assert gate.allowed(visitor, "public/y") == {"pull"}
    assert gate.allowed(visitor, "team/z") == frozenset()


def test_an_anonymous_token_pulls_what_is_public(accounts):
    gate = Gate(POLICY, accounts, Tokens(b"k" * 32, "s", ManualClock()), "s", "")

    answer = run(
        gate.grant(request(), {"scope": ["repository:public/y:pull,push"], "offline_token": ["true"]})
    )

    visitor = run(gate.identify(request(f"Bearer {answer['token']}")))
    assert gate.allowed(visitor, "public/y") == {"pull"}
    assert "refresh_token" not in answer


def test_a_refresh_token_ends_with_its_account(accounts, tmp_path):
    gate = Gate(POLICY, accounts, Tokens(b"k" * 32, "s", ManualClock()), "s", "")
    form = {
        "grant_type": ["password"],
        "username": ["alice"],
        "password": ["secret"],
        "access_type": ["offline"],
    }
    refresh = run(gate.grant(request(), form))["refresh_token"]

    again = {"grant_type": ["refresh_token"], "refresh_token": [refresh]}
    assert run(gate.grant(request(), again))["token"]
    with pytest.raises(Problem):
        run(gate.identify(request(f"Bearer {refresh}")))
    (tmp_path / "htpasswd").write_text(f"bob:{HASH}\n")
    with pytest.raises(Problem):
        run(gate.grant(request(), again))
    with pytest.raises(Problem):
        run(gate.grant(request(), form | {"password": ["wrong"]}))


def test_a_challenge_cannot_be_bent_by_the_host_header(accounts):
    gate = Gate(POLICY, accounts, Tokens(b"k" * 32, "s", ManualClock()), "s", "")
    ((_, usual),) = gate.challenge(request(), ["repository:a:pull"])
    ((_, bent),) = gate.challenge(request(host='evil",realm="x'), [])

    assert usual == 'Bearer realm="http://registry.test:5000/token",service="s",scope="repository:a:pull"'
    assert bent == 'Bearer realm="http://localhost/token",service="s"'
