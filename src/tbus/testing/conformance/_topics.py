"""Topics: made, compared or left alone, as the strategy says, and those that are not there."""

from __future__ import annotations

from ..._errors import ConfigurationError, ConsumerGone
from ..._topic import TopicOptions
from ..harness import Harness
from ._case import case
from ._kit import raising

WANTED = TopicOptions(partitions=2, retention_time=3600.0)
OTHER = TopicOptions(partitions=3, retention_time=60.0)


@case()
async def create_only_makes_a_topic_and_leaves_one_that_is_there_as_it_is(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        made = await bus.configure_topic(topic, WANTED, strategy="create_only")
        assert (made.partitions, made.retention_time) == (2, 3600.0)
        assert await bus.configure_topic(topic, OTHER, strategy="create_only") == made
        assert await bus.get_topic(topic) == made


@case()
async def validate_only_names_every_difference_and_changes_nothing(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        with raising(ConfigurationError, topic, "validate_only"):
            await bus.configure_topic(topic, WANTED, strategy="validate_only")
        assert await bus.get_topic(topic) is None
        made = await bus.configure_topic(topic, WANTED)
        assert await bus.configure_topic(topic, WANTED, strategy="validate_only") == made
        different = TopicOptions(partitions=2, retention_time=60.0)
        with raising(ConfigurationError, "retention_time", "3600.0", "60.0"):
            await bus.configure_topic(topic, different, strategy="validate_only")
        assert await bus.get_topic(topic) == made


@case()
async def skip_neither_makes_a_topic_nor_looks_at_what_one_is(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        assert await bus.configure_topic(topic, WANTED, strategy="skip") == WANTED
        assert await bus.get_topic(topic) is None
        made = await bus.configure_topic(topic, WANTED)
        assert await bus.configure_topic(topic, OTHER, strategy="skip") == made
        assert await bus.get_topic(topic) == made


@case()
async def a_topic_that_is_missing_has_no_lag_and_is_not_made_by_asking(harness: Harness) -> None:
    topic = harness.topic()
    async with harness.open_bus() as bus:
        with raising(ConsumerGone, f"there is no topic {topic!r}", "configure it first"):
            await bus.lag(topic, "g")
        assert await bus.get_topic(topic) is None
