import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.names import ADJECTIVES, SURNAMES, check_name, random_name


def test_a_name_loses_its_slash():
    assert check_name("/web_1.a-b") == "web_1.a-b"


@pytest.mark.parametrize("name", ["", "a", "/", "-ab", "a b", "a/b", "ä1", "../x", "x" * 300])
def test_other_names_are_refused_with_docker_s_text(name):
    with pytest.raises(InvalidInput, match=r"only \[a-zA-Z0-9\]"):
        check_name(name)


def test_random_names_are_names_and_not_taken():
    taken = {f"{adjective}_{surname}" for adjective in ADJECTIVES for surname in SURNAMES}

    name = random_name(taken)

    assert check_name(name) == name
    assert name not in taken
