import pytest

from orlop.build.chmod import apply_symbolic


@pytest.mark.parametrize(
    ("text", "mode", "is_directory", "expected"),
    [
        ("u+x", 0o644, False, 0o744),
        ("+x", 0o644, False, 0o755),
        ("a-w", 0o666, False, 0o444),
        ("go=", 0o777, False, 0o700),
        ("u=rw,go=r", 0o777, False, 0o644),
        ("+X", 0o644, False, 0o644),
        ("+X", 0o744, False, 0o755),
        ("+X", 0o600, True, 0o711),
        ("g=u", 0o640, False, 0o660),
        ("o=g-w", 0o660, False, 0o664),
        ("u+s,g+s", 0o755, False, 0o6755),
        ("+t", 0o755, True, 0o1755),
        ("g=rx", 0o2755, True, 0o2755),
        ("u+r+w-x", 0o100, False, 0o600),
    ],
)
def test_symbols_mean_what_they_mean_to_chmod(text, mode, is_directory, expected):
    assert apply_symbolic(text, mode, is_directory=is_directory) == expected
