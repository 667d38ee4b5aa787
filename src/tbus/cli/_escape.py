"""Text from elsewhere, made safe to print: what a message holds must not move the cursor,
change a title or hide in a line."""

from __future__ import annotations


def escaped(text: str) -> str:
    r"""The text with whatever is not printable written as `\n`, `\x1b`, `\u202e` and so on:
    control characters, marks that turn the direction of writing, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def escaped_bytes(data: bytes) -> str:
    r"""Bytes as text: UTF-8 as far as they are some, `\xff` where they are not."""
    return escaped(data.decode("utf-8", "backslashreplace"))
