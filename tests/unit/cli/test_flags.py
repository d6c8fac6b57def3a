import pytest

from orlop.cli.flags import Command, Flag, HelpRequested, UsageError, help_text, parse

RUN = Command(
    "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    (
        Flag("interactive", "i", "bool"),
        Flag("tty", "t", "bool"),
        Flag("env", "e", "list"),
        Flag("name"),
        Flag("memory-swappiness", kind="int", default=-1),
    ),
    min_args=1,
    is_interspersed=False,
)


def test_shorthands_cluster_and_the_first_argument_ends_the_flags():
    parsed = parse(RUN, ["-it", "-e", "A=b", "-eC=d", "--name=x", "busybox", "ls", "-l"])

    assert (parsed["interactive"], parsed["tty"], parsed["env"], parsed["name"]) == (
        True,
        True,
        ["A=b", "C=d"],
        "x",
    )
    assert parsed.args == ("busybox", "ls", "-l")
    assert parsed.has("env")
    assert not parsed.has("memory-swappiness")


def test_booleans_take_a_value_after_an_equals_sign_only():
    parsed = parse(RUN, ["--tty=false", "-i=true", "x"])

    assert (parsed["tty"], parsed["interactive"], parsed.args) == (False, True, ("x",))


def test_two_dashes_end_the_flags():
    assert parse(RUN, ["--", "-i"]).args == ("-i",)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nope", "x"], "unknown flag: --nope"),
        (["-x", "y"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["--tty=maybe", "x"], 'invalid argument "maybe"'),
        (["--memory-swappiness", "x", "y"], 'invalid argument "x"'),
        ([], "'orlop run' requires at least 1 argument"),
    ],
)
def test_errors_name_the_word_and_point_to_help(argv, message):
    with pytest.raises(UsageError) as caught:
        parse(RUN, argv)

    assert message in str(caught.value)
    assert "orlop run --help" in str(caught.value)


def test_help_lists_every_flag():
    with pytest.raises(HelpRequested):
        parse(RUN, ["--help"])

    assert "  -e, --env list" in help_text(RUN)
