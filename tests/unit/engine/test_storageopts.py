import pytest

from orlop.base.errors import InvalidInput
from orlop.engine.storageopts import parse_storage_opts


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (None, 0),
        ({"size": "10M"}, 10 << 20),
        ({"Size": "1.5g"}, 3 << 29),
        ({"size": "100"}, 100),
        ({"size": "2 GiB"}, 2 << 30),
    ],
)
def test_sizes(options, size):
    assert parse_storage_opts(options) == size


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inodes": "5"}, "Storage opt inodes not supported"),
        ({"size": "-5"}, "invalid size: '-5'"),
        ({"size": "much"}, "invalid size: 'much'"),
        ({"size": "9" * 40}, "invalid size"),
    ],
)
def test_what_is_no_size_is_refused(options, text):
    with pytest.raises(InvalidInput, match=text):
        parse_storage_opts(options)
