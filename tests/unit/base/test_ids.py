from orlop.base.ids import is_hex_id, new_hex_id


def test_a_new_id_is_64_hex_digits_and_its_short_form_is_no_number():
    ids = [new_hex_id() for _ in range(100)]

    assert all(is_hex_id(value) and not value[:12].isdecimal() for value in ids)
    assert len(set(ids)) == 100


def test_anything_else_is_no_id():
    assert not any(is_hex_id(value) for value in ("", "../x", "A" * 64, "a" * 63, "a" * 64 + "\n"))
