"""What is compared over Kafka, and the figure that is to be reached. Data only."""

from __future__ import annotations

from .plans import Comparison, Contestant, Target

FASTSTREAM_SHARE = 0.04
"""Of the events, for a peer that asks the broker after each."""

KAFKA_PUBLISH = Comparison(
    name="kafka-publish",
    title="Kafka, publish: 100 concurrent publishers",
    about=(
        "100 tasks publish the same bodies, each with its key, each task one after another, and"
        ' wait for every receipt. All promise the same: `acks="all"` and an idempotent producer.'
        " **The fair peer is aiokafka**, `await (await producer.send(...))`, with its defaults"
        " otherwise. tbus gives every event an id, too, in a header; so does the second row of"
        " aiokafka. confluent-kafka is librdkafka, C in threads of its own, and sends no id here:"
        " as its example for asyncio shows it, a thread polls and sets the futures. It waits 5 ms"
        " for a batch to fill, its default; in the row below it does not. The clock starts when"
        " the first twentieth is stored: by then all are connected, and the broker has made the"
        " files of the new topic. Who is slow gets fewer events."
    ),
    count=200_000,
    contestants=(
        Contestant("kafka_publish_tbus", "tbus on Trio, `bus.publish` of bytes"),
        Contestant("kafka_publish_aiokafka", "aiokafka, `await (await producer.send())`"),
        Contestant("kafka_publish_aiokafka_with_id", "aiokafka, the same with an id in a header"),
        Contestant("kafka_publish_confluent", "confluent-kafka, `produce`, futures", share=0.15),
        Contestant("kafka_publish_confluent_eager", "confluent-kafka, the same, `linger.ms=0`"),
        Contestant("kafka_publish_faststream", "FastStream, `broker.publish`", share=0.2),
        Contestant("kafka_publish_tbus_envelopes", "tbus on Trio, `bus.publish` of envelopes"),
    ),
    targets=(Target("at least", 1.0, "rate", "kafka_publish_aiokafka"),),
    topic="empty",
    partitions=3,
)

KAFKA_PIPELINE = Comparison(
    name="kafka-pipeline",
    title="Kafka, publish: one task that does not wait",
    about=(
        "One task sends the same bodies, each with its key, and waits for all receipts at the"
        ' end. All promise the same: `acks="all"` and an idempotent producer. **The fair peer is'
        " aiokafka**, `await producer.send(...)` with the futures gathered, with its defaults"
        " otherwise; beside it with batches as large as tbus makes them. confluent-kafka does it in"
        " a plain function, which blocks its thread: `produce` and `poll(0)`; and with its"
        " `AIOProducer`; with its defaults otherwise. The clock starts as above."
    ),
    count=200_000,
    contestants=(
        Contestant("kafka_publish_tbus_pipelined", "tbus on Trio, `open_publisher().send`"),
        Contestant("kafka_publish_aiokafka_pipelined", "aiokafka, `producer.send`"),
        Contestant(
            "kafka_publish_aiokafka_pipelined_tuned", "aiokafka, the same, `max_batch_size=524288`"
        ),
        Contestant(
            "kafka_publish_confluent_pipelined", "confluent-kafka, `produce`, `poll(0)`, blocking"
        ),
        Contestant("kafka_publish_confluent_aio", "confluent-kafka, `AIOProducer`"),
    ),
    targets=(Target("at least", 1.0, "rate", "kafka_publish_aiokafka_pipelined"),),
    topic="empty",
    partitions=3,
)

KAFKA_CONSUME = Comparison(
    name="kafka-consume",
    title="Kafka, consume: fetch, decode, handle, commit",
    about=(
        "The topic is filled by a tbus publisher before each contestant starts: 1000 keys in"
        " turn, three partitions. The clock runs from the first event handled to the last, while"
        " commits go out every 0.25 s; afterwards the broker is asked whether all is committed."
        " The handler counts, and checks each key's order by `event_version`. **The fair peer is"
        " an aiokafka `getmany` loop** that decodes the whole envelope as tbus does, and calls the"
        " same handler for one record after another; the next row decodes only the two fields that"
        " the handler needs. FastStream commits after each message (or batch) that was handled,"
        " which is its only way to acknowledge after handling; it gets a twenty-fifth of them."
        " confluent-kafka is a loop in a plain function, whose handler is one too: it fetches and"
        " parses in C, in threads of its own, but what one handler waits for, all wait for. What a"
        " client fetches before the first event is handled, the clock does not see; librdkafka"
        " fetches most ahead: 100,000 messages, a third of all."
    ),
    count=300_000,
    contestants=(
        Contestant("kafka_consume_tbus", "tbus on Trio, in key order"),
        Contestant("kafka_consume_aiokafka", "aiokafka, `getmany`, whole envelope, handler"),
        Contestant("kafka_consume_aiokafka_needed", "aiokafka, `getmany`, two fields, handler"),
        Contestant("kafka_consume_aiokafka_json", "aiokafka, `getmany`, json, handler"),
        Contestant("kafka_consume_confluent", "confluent-kafka, `consume(500)`, whole envelope"),
        Contestant(
            "kafka_consume_confluent_needed",
            "confluent-kafka, `consume(500)`, two fields",
        ),
        Contestant(
            "kafka_consume_faststream", "FastStream, handler, then commit", FASTSTREAM_SHARE
        ),
        Contestant("kafka_consume_faststream_batch", "FastStream, `batch=True`, then commit"),
        Contestant("kafka_consume_tbus_more_in_flight", "tbus on Trio, `max_in_flight=4000`"),
    ),
    targets=(
        Target("at least", 1.0, "rate", "kafka_consume_aiokafka"),
        Target("at least", 8.0, "rate", "kafka_consume_faststream"),
    ),
    topic="filled",
    partitions=3,
)

KAFKA_PUBLISH_PINNED = Comparison(
    name="kafka-publish-pinned",
    title="Kafka, publish: 100 concurrent publishers, on one processor",
    about=(
        "As above, but the whole process, tbus or its peer, stays on one processor (as under"
        " `taskset -c 0`), which it shares with the broker as that one likes. tbus crosses between"
        " two threads, of which one interpreter lock lets one run at a time: here neither has to"
        " fetch from another processor's cache what the other one wrote, and no wake goes from"
        " processor to processor. aiokafka has one thread anyway."
    ),
    count=200_000,
    contestants=(
        Contestant("kafka_publish_tbus_pinned", "tbus on Trio, `bus.publish` of bytes"),
        Contestant("kafka_publish_aiokafka_pinned", "aiokafka, `await (await producer.send())`"),
    ),
    targets=(),
    topic="empty",
    partitions=3,
)

KAFKA_CONSUME_PINNED = Comparison(
    name="kafka-consume-pinned",
    title="Kafka, consume: the same on one processor",
    about=(
        "As above, with the process on one processor, as told of the publishers before. A process"
        " whose program does little beside its events is faster so."
    ),
    count=300_000,
    contestants=(
        Contestant("kafka_consume_tbus_pinned", "tbus on Trio, in key order"),
        Contestant("kafka_consume_aiokafka_pinned", "aiokafka, `getmany`, whole envelope, handler"),
    ),
    targets=(),
    topic="filled",
    partitions=3,
)

KAFKA_HANDLERS = Comparison(
    name="kafka-handlers",
    title="Kafka, handlers that wait: 2 ms each, one partition",
    about=(
        "500 events of 500 keys in one partition, and a handler that waits 2 ms. The clock runs"
        " from the first call of the handler to the end of the last. **The fair peer is a serial"
        " aiokafka consumer**, `getmany`, `await handler`, `commit`: all that a loop can do that"
        " keeps the order. tbus keeps the order of each key, and runs the others meanwhile."
    ),
    count=500,
    contestants=(
        Contestant("kafka_consume_tbus_waiting", "tbus on Trio, in key order"),
        Contestant("kafka_consume_aiokafka_waiting", "aiokafka, one after another"),
    ),
    targets=(Target("at least", 25.0, "rate", "kafka_consume_aiokafka_waiting"),),
    topic="filled",
    partitions=1,
)
