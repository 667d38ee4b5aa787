"""What may not be published is named by what was given, and no type for a value."""

from __future__ import annotations

from typing import Any

import pytest

from tbus import ConfigurationError, open_bus


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        ({"a": 1}, (), "body='<dict>': the body is an Envelope or bytes, not dict"),
        ("text", (), "body='<str>': the body is an Envelope or bytes, not str"),
        (b"", {"a": "b"}, "headers='<dict>': give pairs of name and value, as its items() are"),
        (b"", "ab", "headers='ab': every header is a pair of name and value"),
        (b"", ["ab"], "headers='ab': every header is a pair of name and value"),
    ],
)
async def test_an_error_names_what_was_given(body: Any, headers: Any, said: str) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError) as caught:
            await bus.publish("orders", body, headers=headers)
    assert str(caught.value) == said
