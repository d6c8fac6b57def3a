from orlop.registry.retry import Attempts, RetryPolicy, parse_retry_after

POLICY = RetryPolicy(attempts=3, first_delay_s=1.0, max_delay_s=4.0, max_retry_after_s=10.0)


def test_delays_grow_and_end():
    attempts = Attempts(POLICY)

    first, second, third = (attempts.delay_after_failure() for _ in range(3))

    assert 0.5 <= first <= 1.0 <= second <= 2.0
    assert third is None


def test_progress_starts_the_count_again():
    attempts = Attempts(POLICY)

    assert all(attempts.delay_after_failure(progress_bytes=1 << 20) is not None for _ in range(100))


def test_a_byte_a_time_is_no_progress():
    attempts = Attempts(POLICY)

    assert [attempts.delay_after_failure(progress_bytes=1) is None for _ in range(3)] == [False, False, True]


def test_retry_after_is_honoured_within_bounds():
    assert Attempts(POLICY).delay_after_failure(7.0) == 7.0
    assert Attempts(POLICY).delay_after_failure(1e9) is None


def test_odd_retry_after_values_are_ignored():
    assert [parse_retry_after(text) for text in ("5", "-1", "1e9", "", "Wed, 21 Oct 2026", "9" * 50)] == [
        5.0, None, None, None, None, None,
    ]  # fmt: skip
