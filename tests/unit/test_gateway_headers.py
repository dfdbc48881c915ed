"""Raw headers of a call: nothing that a client sent twice is lost from sight."""

from gateway.headers import header_text, headers_of


def test_a_header_that_came_twice_shows_both_values_in_order() -> None:
    scope = {
        "headers": [(b"host", b"hub"), (b"authorization", b"one"), (b"accept", b"*/*"), (b"authorization", b"two")]
    }

    assert headers_of(scope)[b"authorization"] == [b"one", b"two"]
    assert header_text(headers_of(scope), b"authorization") == "one"
    assert headers_of(scope)[b"host"] == [b"hub"]


def test_a_header_that_did_not_come_has_no_value() -> None:
    scope = {"headers": [(b"host", b"hub")]}

    assert b"authorization" not in headers_of(scope)
    assert header_text(headers_of(scope), b"authorization") is None


def test_what_comes_after_the_first_look_is_no_header() -> None:
    headers = [(b"host", b"hub")]
    scope = {"headers": headers}
    headers_of(scope)
    headers.append((b"authorization", b"from a trailer"))

    assert b"authorization" not in headers_of(scope)
