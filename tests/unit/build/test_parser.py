import pytest

from orlop.build.dockerfile import instructions as ins
from orlop.build.dockerfile.errors import DockerfileError
from orlop.build.dockerfile.lines import MAX_INSTRUCTIONS, MAX_LINE_BYTES
from orlop.build.dockerfile.lower import read_dockerfile
from orlop.build.dockerfile.parser import parse


def only(text):
    _, (_, instruction) = parse(b"FROM x\n" + text.encode())
    return instruction


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FORM x", "dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)"),
        ("FROM a\n\nFOO", "dockerfile parse error on line 3: unknown instruction: FOO"),
        ("FROM a\nCOPY a", "line 2: COPY requires at least two arguments, but only one was provided."),
        ("FROM a\nCOPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("FROM a\nCOPY --chown=a --chown=b a b", "duplicate flag specified: --chown"),
        ("FROM a\nCOPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", 'invalid name for build stage: "1b"'),
        ("FROM a\nHEALTHCHECK --interval=1ns CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("FROM a\nHEALTHCHECK x", 'Unknown type "X" in HEALTHCHECK (try CMD)'),
        ("FROM a\nHEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("FROM a\nSHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []", "SHELL requires at least one argument"),
        ('FROM a\nCMD ["a", 1]', "arrays must be comprised of strings only"),
        ("FROM a\nENV A", "ENV must have two arguments"),
        ("FROM a\nENV A=b c", 'can\'t find = in "c". Must be of the form: name=value'),
        ("FROM a\nLABEL =b", "LABEL names can not be blank"),
        ("FROM a\nARG", "ARG requires at least one argument"),
        ("FROM a\nONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nRUN --security=insecure x", "security mode insecure is not allowed"),
        ("FROM a\nRUN --network=hots x", 'invalid network mode "hots" (did you mean host?)'),
        ("FROM a\nRUN <<E\nx", "unterminated heredoc"),
        ("FROM a\nCOPY a <<E\nE", "COPY cannot accept a heredoc as a destination"),
        ("# escape=x\nFROM a", "invalid escape token 'x'"),
        ("# escape=`\n# escape=`\nFROM a", "only one escape parser directive can be used"),
        ("", "file with no instructions"),
        ("# nothing", "file with no instructions"),
        ("ARG A", "dockerfile contains no stages to build"),
        ("RUN x", "no build stage in current context"),
        ("FROM a\nRUN a\0b", "contains a NUL byte"),
        ("FROM a\nRUN " + "x" * MAX_LINE_BYTES, "greater than max allowed size of 65535"),
        ("FROM a\nRUN " + ("y" * 60_000 + "\\\n") * 20, "instruction longer than"),
        ("FROM a\n" + "RUN x\n" * MAX_INSTRUCTIONS, "more than 4000 instructions"),
        ("FROM a\n" * 1_001, "more than 1000 build stages"),
    ],
)
def test_bad_dockerfiles_are_named(text, message):
    with pytest.raises(DockerfileError) as caught:
        read_dockerfile(text.encode())

    assert message in caught.value.message


def test_an_error_quotes_the_line_with_a_caret():
    with pytest.raises(DockerfileError) as caught:
        parse(b"FROM a\nRUN x\n  RUNN y\nRUN z\n")

    assert caught.value.excerpt == "  1 | FROM a\n  2 | RUN x\n> 3 |   RUNN y\n        ^^^^\n  4 | RUN z"


def test_bytes_that_are_not_utf8_are_fine_in_a_comment_only():
    parse(b"# caf\xe9\nFROM a")

    with pytest.raises(DockerfileError, match="not valid UTF-8"):
        parse(b"FROM a\nRUN caf\xe9")


@pytest.mark.parametrize(
    ("text", "words", "is_shell"),
    [
        ('RUN ["a", "b"]', ("a", "b"), False),
        ("RUN ['a']", ("['a']",), True),
        ("RUN [ -f x ]", ("[ -f x ]",), True),
        ("RUN a  b", ("a  b",), True),
        ("run a", ("a",), True),
        ("RUN a \\\n# gone\n\n  b", ("a   b",), True),
        ("RUN a \\  \nb", ("a b",), True),
        ("RUN a\\\\", ("a\\\\",), True),
        ("RUN --network=none a", ("a",), True),
        ("RUN -- --odd", ("--odd",), True),
    ],
)
def test_commands_have_shell_and_exec_form(text, words, is_shell):
    run = only(text)

    assert (run.command.words, run.command.is_shell) == (words, is_shell)


def test_backtick_escape_leaves_the_backslash_alone():
    _, (_, run) = parse(b"# escape=`\nFROM a\nRUN dir C:\\ `\n /s")

    assert run.command.words == ("dir C:\\  /s",)


def test_bom_and_crlf_are_read_over():
    _, instructions = parse(b"\xef\xbb\xbfFROM a\r\nENV A=b\r\n")

    assert instructions[1].pairs == (ins.KeyValue("A", "b"),)


def test_directives_end_at_the_first_other_line():
    source, _ = parse(b"# check=skip=all\n\n# escape=`\nFROM a")

    assert source.escape == "\\"
    assert source.directives == {"check": "skip=all"}


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ENV A=b C='d e' F=g\\ h", [("A", "b"), ("C", "'d e'"), ("F", "g\\ h")]),
        ("ENV A b c=d", [("A", "b c=d")]),
        ('ENV A="x=\\"y"', [("A", '"x=\\"y"')]),
        ("LABEL a=", [("a", "")]),
    ],
)
def test_pairs_keep_their_quotes(text, pairs):
    assert [(pair.key, pair.value) for pair in only(text).pairs] == pairs


def test_several_heredocs_follow_one_instruction():
    copy = only("COPY <<a <<-'b' rest /d/\n1\na\n\t2\n\tb\n")

    assert [(h.name, h.text, h.is_expanded) for h in copy.sources.files] == [
        ("a", "1\n", True),
        ("b", "2\n", False),
    ]
    assert (copy.sources.paths, copy.sources.destination) == (("rest",), "/d/")


def test_an_onbuild_keeps_its_heredoc():
    assert only("ONBUILD RUN <<E\nx\nE").expression == "RUN <<E\nx\nE"


def test_times_of_a_healthcheck_are_go_durations():
    check = only("HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD true")

    assert (check.interval_ns, check.timeout_ns, check.retries) == (90_000_000_000, 1_500_000_000, 3)
    assert check.test == ("CMD-SHELL", "true")


def test_an_empty_continuation_line_is_warned_of():
    source, _ = parse(b"FROM a\nRUN b \\\n\nc")

    assert source.warnings == ["Empty continuation line found in: RUN b c"]
