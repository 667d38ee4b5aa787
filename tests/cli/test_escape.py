"""What a message holds cannot play with the terminal that it is shown on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus.cli._escape import escaped, escaped_bytes


@given(st.text())
def test_whatever_is_printed_is_printable_and_one_line(text):
    assert escaped(text).isprintable()


@given(st.binary())
def test_bytes_too(data):
    assert escaped_bytes(data).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 注文 ✓", "Grüße, 注文 ✓"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("one\ntwo\r", r"one\ntwo\r"),
        ("a\u202eb", r"a\u202eb"),
        ("\x7f", r"\x7f"),
    ],
)
def test_what_is_harmless_stays_and_the_rest_is_spelled_out(text, shown):
    assert escaped(text) == shown


def test_bytes_that_are_no_text_are_shown_all_the_same():
    assert escaped_bytes(b"ok \xff\x00") == r"ok \xff\x00"
