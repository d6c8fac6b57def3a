"""Whatever the bytes, the frontend answers with a graph, a request for images, or a named error."""

from hypothesis import given, settings
from hypothesis import strategies as st

from orlop.base.errors import InvalidInput
from orlop.build.dockerfile.expansion import expand_word, expand_words
from orlop.build.dockerfile.lower import lower, read_dockerfile
from orlop.build.dockerfile.options import BasesNeeded, FrontendOptions

WORDS = st.sampled_from(
    (
        "FROM RUN COPY ADD ENV ARG LABEL CMD ENTRYPOINT EXPOSE VOLUME USER WORKDIR ONBUILD SHELL HEALTHCHECK "
        "STOPSIGNAL MAINTAINER scratch AS as a b --from=0 --chown=1 --chmod=7 -- # escape=` \\ ` $x ${x} ${x:-y} ${x "
        "<<E E <<-'E' [\"a\"] [1] [ ' \" = x=y = /a/ .. * 80/tcp NONE CMD --link --platform=linux"
    ).split()
)
TEXT = st.lists(st.one_of(WORDS, st.sampled_from([" ", "\n", "\r\n", "\t", "\0"])), max_size=40).map(" ".join)


def build(data):
    try:
        lower(read_dockerfile(data), FrontendOptions(), {})
    except (InvalidInput, BasesNeeded):
        return


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data):
    build(data)


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_any_row_of_likely_words(text):
    build(("FROM scratch\n" + text).encode())


@settings(max_examples=300, deadline=None)
@given(
    st.text("abx$${}}:-+?#%/*\\'\"<> ", max_size=60),
    st.dictionaries(st.sampled_from("abx"), st.text(max_size=8)),
)
def test_any_word_expands_or_is_refused(text, env):
    for function in (expand_word, expand_words):
        try:
            function(text, env)
        except InvalidInput:
            continue
