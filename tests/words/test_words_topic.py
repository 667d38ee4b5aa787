from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._errors import ConfigurationError, InvalidTopic
from tbus._topic import (
    Difference,
    TopicOptions,
    check_group,
    check_strategy,
    check_topic,
    differences,
)

ALPHABET = "ABCZabcz0189._-"
checks = pytest.mark.parametrize("check", [check_topic, check_group])


@checks
@pytest.mark.parametrize("name", ["a", "orders", "a.b.c", "-", "_", "0", "A-b_C.9", "x" * 200])
def test_a_name_that_every_broker_takes_is_given_back(check: Any, name: str) -> None:
    assert check(name) == name


@checks
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "has none"),
        ("a b", "' ' at position 1 "),
        ("a\n", r"'\\n' at position 1 "),
        ("ordérs", "'é' at position 3 "),
        ("a*", r"'\*' at position 1 "),
        ("a>", "'>' at position 1 "),
        ("a/b", "'/' at position 1 "),
        (".", r"'\.' at position 0 "),
        ("..", r"'\.' at position 0 "),
        (".a", r"'\.' at position 0 "),
        ("a.", r"'\.' at position 1 "),
        ("ab..c", r"'\.' at position 3 "),
        ("x" * 200 + "y", "has 201: character 'y' at position 200 "),
        ("x" * 200 + "\n", r"'\\n' at position 200 "),
    ],
)
def test_another_name_is_refused_and_the_character_and_its_place_told(
    check: Any, name: str, told: str
) -> None:
    with pytest.raises(InvalidTopic, match=told) as caught:
        check(name)
    assert caught.value.field == check.__name__.removeprefix("check_")
    assert str(caught.value.value).startswith(name[:200])


@checks
@pytest.mark.parametrize("name", [None, b"orders", 5, ["orders"]])
def test_a_name_that_is_no_text_is_refused(check: Any, name: Any) -> None:
    with pytest.raises(InvalidTopic, match="is a str"):
        check(name)


@given(st.text(ALPHABET, max_size=210) | st.text(max_size=10))
def test_a_name_is_taken_exactly_if_it_keeps_the_rule(name: str) -> None:
    tokens = name.split(".")
    good = len(name) <= 200 and all(re.fullmatch("[A-Za-z0-9_-]+", one) for one in tokens)
    if good:
        assert check_topic(name) == name
    else:
        with pytest.raises(InvalidTopic):
            check_topic(name)


def test_a_refused_name_is_shown_bounded() -> None:
    with pytest.raises(InvalidTopic) as caught:
        check_topic("x" * 1_000_000)
    assert len(str(caught.value)) < 500


def test_by_default_a_topic_keeps_messages_for_seven_days_and_has_no_limit() -> None:
    options = TopicOptions()
    assert options.retention_time == 7 * 24 * 3600
    assert (options.max_bytes, options.max_messages, options.partitions) == (None, None, 1)


def test_the_presets_are_those_of_the_original() -> None:
    day, mib = 24 * 3600, 1024 * 1024
    found = [
        (o.partitions, o.replicas, o.retention_time, o.max_bytes, o.max_messages)
        for o in (TopicOptions.high(), TopicOptions.medium(), TopicOptions.low())
    ]
    assert found == [
        (10, 3, 7 * day, 1024 * mib, 1_000_000),
        (5, 3, 3 * day, 500 * mib, 100_000),
        (3, 3, day, 100 * mib, 10_000),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("partitions", v) for v in (0, -1, 1.0, True, "3", None)],
        *[("replicas", v) for v in (0, True, None)],
        ("storage", "disk"),
        ("storage", None),
        ("storage", []),
        *[("retention_time", v) for v in (0, -1, float("nan"), float("inf"), "7d", True)],
        *[("max_bytes", v) for v in (0, -1, 1.5, False)],
        *[("max_messages", v) for v in (0, -1, 1.5, False)],
        *[("compression", v) for v in ("", "zip", "gzip:0", "gzip:10", "zstd:23", "lz4:1", None)],
        *[("compression", v) for v in ("gzip:", "gzip:1:2", "gzip: 5", "gzip:٣", 6)],
        ("description", None),
        *[("duplicate_window", v) for v in (-1, float("nan"), None, 10**400)],
    ],
)
def test_an_option_out_of_range_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TopicOptions(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize("value", ["none", "gzip", "gzip:1", "gzip:9", "zstd:22", "snappy", "s2"])
def test_a_compression_may_have_a_level(value: str) -> None:
    assert TopicOptions(compression=value).compression == value


@pytest.mark.parametrize("name", ["create_only", "create_or_update", "validate_only", "skip"])
def test_a_known_strategy_is_given_back(name: str) -> None:
    assert check_strategy(name) == name


@pytest.mark.parametrize("name", ["", "create", None, 5, []])
def test_an_unknown_strategy_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="create_only, create_or_update"):
        check_strategy(name)


def test_topics_that_agree_have_no_differences() -> None:
    assert differences(TopicOptions.high(), TopicOptions.high()) == ()


@pytest.mark.parametrize("field", [a.name for a in attrs.fields(TopicOptions)])
def test_each_field_that_differs_is_told(field: str) -> None:
    other: Any = {"storage": "memory", "compression": "lz4", "description": "x"}.get(field, 77)
    changed = attrs.evolve(TopicOptions(), **{field: other})
    (found,) = differences(changed, TopicOptions())
    assert found == Difference(field, other, getattr(TopicOptions(), field))
    assert str(found) == f"{field}: wanted {found.wanted!r}, found {found.found!r}"


def test_differences_come_in_the_order_of_the_fields() -> None:
    found = differences(TopicOptions.high(), TopicOptions())
    assert [one.field for one in found] == ["partitions", "replicas", "max_bytes", "max_messages"]
