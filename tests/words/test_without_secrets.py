"""Errors show what was given as a URL or a server, and never a password in it."""

from __future__ import annotations

import pytest

from tbus import BusConfig, ConfigurationError
from tbus._rules import without_secrets


@pytest.mark.parametrize(
    "where",
    [
        "", "nonsense", "/tmp", "./bus.json", "htp://x", "htp://x:4222,y:4223", "htp://[::1]:4222",
        "localhost:4222", "htp://x/", "nats:/x:4222", "htp://x:65535", "x:0",
    ],
)  # fmt: skip
def test_what_holds_no_secret_is_shown_as_it_was_given(where):
    with pytest.raises(ConfigurationError) as caught:
        BusConfig.load(where)
    assert caught.value.value == where
    assert repr(where) in str(caught.value)


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("htp://joe:swordfish@x:4222", "htp://***@x:4222"),
        ("htp://swordfish@x", "htp://***@x"),
        ("joe:swordfish@x:4222", "***@x:4222"),
        ("nats:joe:swordfish@x", "nats:***@x"),
        ("nats:/joe:swordfish@x", "nats:/***@x"),
        ("htp://joe:sword@fish@x", "htp://***"),
        ("htp://joe:sword/fish@x", "htp://***"),
        ("htp://joe:sword?fish@x", "htp://***"),
        ("htp://joe:sword#fish@x", "htp://***"),
        ("htp://joe:sword fish@x", "htp://***"),
        ("htp://joe:sword\nfish@x", "htp://***"),
        ("htp://x?token=swordfish", "htp://x?***"),
        ("htp://x?token=sword@fish", "htp://***"),
        ("htp://joe:swordfish", "htp://***"),
        ("htp://joe:4fish", "htp://***"),
        ("htp://x:4222swordfish", "htp://***"),
        ("kafka-x://joe:98765", "kafka-x://***"),
        ("kafka://joe:98765", "***"),
        ("joe:98765", "***"),
        ("joe:65536", "***"),
        ("joe:0042", "***"),
        ("htp://x:4222,joe:70000/", "htp://***/"),
        ("htp://x/swordfish", "htp://x/***"),
        ("htp://x#swordfish", "htp://x#***"),
        ("joe:swordfish", "***"),
        ("token=swordfish", "***"),
        ("x?token=swordfish", "***"),
        ("htp://joe:swordfish@h1,joe:swordfish@h2", "htp://***"),
        ("htp://joe:swordfish@h1, h2", "htp://***@***"),
        ("nats://x/swordfish", "nats://x/***"),
        ("nats://joe:sword@fish@x", "nats://***"),
        ("nats+embedded://joe:swordfish@x", "nats+embedded://***@x"),
        ("nats://x?token=swordfish&token=swordfish", "nats://x?***"),
        ("nats://joe:swordfish", "***"),
        (b"nats://joe:swordfish@x", "<bytes>"),
    ],
)
def test_of_what_may_hold_one_only_scheme_and_hosts_are_shown(where, seen):
    with pytest.raises(ConfigurationError) as caught:
        BusConfig.load(where)
    assert caught.value.value == seen
    assert "fish" not in str(caught.value)
    assert "sword" not in str(caught.value).replace("password", "")


def test_what_is_shown_has_a_bound():
    assert len(str(without_secrets("x" * 1000))) == 80


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (3, 3), (b"swordfish", "<bytes>"), ([1], "<list>"),
        ("swordfish", "***"), ("x:4222", "***"), ("nats://joe:swordfish@x", "***"),
    ],
)  # fmt: skip
def test_a_section_that_is_none_is_shown_unless_it_may_be_a_token(given, seen):
    with pytest.raises(ConfigurationError, match=f"not {type(given).__name__}") as caught:
        BusConfig.load("memory://", nats=given)
    assert (caught.value.field, caught.value.value) == ("nats", seen)


@pytest.mark.parametrize(
    ("server", "seen"),
    [("x:65536", "***"), ("", ""), ("joe:swordfish@x", "***@x"), ("joe:swordfish", "***")],
)
def test_a_server_that_is_none_is_shown_without_secrets(server, seen):
    with pytest.raises(ConfigurationError) as caught:
        BusConfig.load("memory://", nats={"servers": [server]})
    assert caught.value.value == seen
