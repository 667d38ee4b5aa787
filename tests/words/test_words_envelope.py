from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tbus._envelope import Envelope, new_event_id
from tbus._errors import ConfigurationError, InvalidEnvelope

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


def envelope(**changes: Any) -> Envelope:
    fields: dict[str, Any] = {
        "event_id": "id-1",
        "aggregate_id": "order-1",
        "event_type": "OrderPlaced",
        "event_version": 1,
        "timestamp": NOON,
        "payload": b'{"total":42}',
    }
    return Envelope(**(fields | changes))


def body(**changes: Any) -> bytes:
    """A valid body with some fields changed; one that is `...` is left out."""
    fields = json.loads(envelope().encode()) | changes
    return json.dumps({k: v for k, v in fields.items() if v is not ...}).encode()


# --- the wire ----------------------------------------------------------------------------

# Written by Go 1.26's encoding/json from a struct with these fields.
BY_GO = [
    (
        Envelope(
            "id-1", "order-1", "OrderPlaced", 1,
            datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), b'{"total":42}',
        ),
        '{"event_id":"id-1","aggregate_id":"order-1","event_type":"OrderPlaced",'
        '"event_version":1,"timestamp":"2024-01-02T03:04:05Z","payload":{"total":42}}',
    ),
    (
        Envelope(
            "id-2", "a:b_c-d./e", "Type", 2**63 - 1,
            datetime(2024, 1, 2, 3, 4, 5, 120000, tzinfo=timezone(timedelta(hours=8))),
            b"[1,2.50,1e400,null]", "trace", "corr", 7,
        ),
        '{"event_id":"id-2","aggregate_id":"a:b_c-d./e","event_type":"Type",'
        '"event_version":9223372036854775807,"timestamp":"2024-01-02T03:04:05.12+08:00",'
        '"trace_id":"trace","correlation_id":"corr","tenant_id":7,'
        '"payload":[1,2.50,1e400,null]}',
    ),
    (
        Envelope(
            "<a>&\u2028\u2029\x7f", "x", '"\\/\t\n\r\b\f\x01é\U0001f600', 2,
            datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=timezone(-timedelta(hours=5, minutes=30))),
            b'"x"', "&", "ü", -3,
        ),
        '{"event_id":"\\u003ca\\u003e\\u0026\\u2028\\u2029\x7f","aggregate_id":"x",'
        '"event_type":"\\"\\\\/\\t\\n\\r\\b\\f\\u0001é\U0001f600","event_version":2,'
        '"timestamp":"0001-01-01T00:00:00.000001-05:30","trace_id":"\\u0026",'
        '"correlation_id":"ü","tenant_id":-3,"payload":"x"}',
    ),
    (
        Envelope(
            "id-4", "x", "T", 3,
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), b"null", "", "c",
        ),
        '{"event_id":"id-4","aggregate_id":"x","event_type":"T","event_version":3,'
        '"timestamp":"9999-12-31T23:59:59.999999Z","correlation_id":"c","payload":null}',
    ),
    (
        Envelope(
            "id-5", "x", "T", 3, datetime(2024, 6, 1, 0, 0, 0, 123450, tzinfo=UTC),
            '{"ü":[]}'.encode(), tenant_id=1,
        ),
        '{"event_id":"id-5","aggregate_id":"x","event_type":"T","event_version":3,'
        '"timestamp":"2024-06-01T00:00:00.12345Z","tenant_id":1,"payload":{"ü":[]}}',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("made", "written"), BY_GO)
def test_encoding_writes_the_bytes_that_go_writes(made: Envelope, written: str) -> None:
    assert made.encode() == written.encode()


@pytest.mark.parametrize(("made", "written"), BY_GO)
def test_what_go_wrote_is_read_back_equal(made: Envelope, written: str) -> None:
    assert Envelope.from_bytes(written.encode()) == made


@pytest.mark.parametrize("character", "<>&\u2028\u2029")
def test_each_character_that_go_escapes_in_a_string_is_escaped(character: str) -> None:
    escaped = f"\\u{ord(character):04x}".encode()
    assert b'"trace_id":"a' + escaped + b'b"' in envelope(trace_id=f"a{character}b").encode()


def test_a_payload_is_kept_byte_for_byte_even_where_go_would_escape_or_compact() -> None:
    payload = '{ "a" : "<&>\u2028" , "b":1.0 }'.encode()
    data = envelope(payload=payload).encode()
    assert data.endswith(b'"payload":' + payload + b"}")
    assert Envelope.from_bytes(data).payload == payload


def test_fields_that_are_unknown_or_null_are_as_if_absent() -> None:
    data = body(other={"x": [1]}, trace_id=None, correlation_id=None, tenant_id=None)
    assert Envelope.from_bytes(data) == envelope(payload=b'{"total": 42}')


def test_the_order_of_fields_and_white_space_do_not_matter_for_reading() -> None:
    fields = json.loads(envelope().encode())
    data = json.dumps(dict(reversed(fields.items())), indent=2).encode()
    assert Envelope.from_bytes(data).event_id == "id-1"


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2024-01-02T12:00:00.123456499Z", NOON.replace(microsecond=123456)),
        ("2024-01-02T12:00:00.999999999Z", NOON + timedelta(seconds=1)),
        ("2024-01-02T12:00:00.5-07:00", NOON.replace(microsecond=500000) + timedelta(hours=7)),
    ],
)
def test_nanoseconds_are_read_to_the_nearest_microsecond(text: str, time: datetime) -> None:
    assert Envelope.from_bytes(body(timestamp=text)).timestamp == time


def test_a_zone_is_written_as_it_was_read() -> None:
    data = body(timestamp="2024-01-02T12:00:00+05:45")
    assert b'"2024-01-02T12:00:00+05:45"' in Envelope.from_bytes(data).encode()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_body_may_be_any_kind_of_bytes(kind: Any) -> None:
    data = envelope(trace_id="ü").encode()
    assert Envelope.from_bytes(kind(data)) == envelope(trace_id="ü")


# --- what is refused ---------------------------------------------------------------------

BROKEN_FIELDS: list[tuple[str, object]] = [
    *[("event_id", v) for v in ("", " \t\n", 1, None)],
    *[("aggregate_id", v) for v in ("", " \t\n", 1, None)],
    *[("event_type", v) for v in ("", " \t\n", 1, None)],
    *[("event_version", v) for v in (0, -1, 2**63, 10**400, "1", True, 1.5, None)],
    *[("timestamp", v) for v in (None, 1, 1.5, "", "yesterday", "2024-01-02T12:00:00")],
    ("trace_id", 1),
    ("trace_id", True),
    ("trace_id", ["x"]),
    ("correlation_id", 1),
    ("correlation_id", {}),
    *[("tenant_id", v) for v in (2**63, -(2**63) - 1, 10**400, "1", True, 1.5)],
    *[("aggregate_id", v) for v in ("a b", "a\n", "é", "a\u2028", "x" * 257, "a\\b")],
]


@pytest.mark.parametrize(("field", "value"), BROKEN_FIELDS)
def test_reading_refuses_what_breaks_a_rule_and_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        Envelope.from_bytes(body(**{field: value}))
    assert caught.value.field == field
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(("field", "value"), [*BROKEN_FIELDS, ("trace_id", None)])
def test_making_refuses_what_breaks_a_rule_and_names_the_field(field: str, value: object) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        envelope(**{field: value})
    assert caught.value.field == field
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "field", ["event_id", "aggregate_id", "event_type", "event_version", "timestamp", "payload"]
)
def test_reading_names_a_field_that_is_missing(field: str) -> None:
    with pytest.raises(InvalidEnvelope, match=f"{field} is missing") as caught:
        Envelope.from_bytes(body(**{field: ...}))
    assert caught.value.field == field


def test_an_aggregate_id_of_256_characters_is_taken_and_the_error_for_another_tells_where() -> None:
    assert envelope(aggregate_id="x" * 256).aggregate_id == "x" * 256
    with pytest.raises(InvalidEnvelope, match="'é' at position 2 "):
        envelope(aggregate_id="abéd")
    with pytest.raises(InvalidEnvelope, match="257 characters"):
        envelope(aggregate_id="x" * 257)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"\xef\xbb\xbf" + body(),
        body()[:-1],
        body() + b"x",
        body(event_id="\ud800"),
        body(payload="\ud800 "),
        body(payload=float("nan")),
        body(payload=float("inf")),
        body().replace(b"42", b"0042"),
        body().replace(b"42", b'"\xff"'),
        body().replace(b"42", b'"\xed\xa0\x80"'),
        body().replace(b"id-1", b"id\xff"),
        body().replace(b"{", b'{"other":"\xff",', 1),
        body().replace(b"42", b"[" * 100_000 + b"]" * 100_000),
        body().replace(b"42", b"[" * 100_000),
        b"[" * 100_000,
        body().replace(b"{", b'{"other":' + b"[" * 100_000 + b"]" * 100_000 + b",", 1),
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_body_that_holds_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidEnvelope):
        Envelope.from_bytes(data)


@pytest.mark.parametrize("data", [None, 1, "{}", "ü", [], object()])
def test_a_body_that_is_no_bytes_is_refused(data: Any) -> None:
    with pytest.raises(InvalidEnvelope, match="must be bytes"):
        Envelope.from_bytes(data)


def deep(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


@attrs.frozen
class Order:
    total: float


@pytest.mark.parametrize(
    "payload",
    [
        object(),
        float("nan"),
        {"a": [None, float("-inf")]},
        Order(float("nan")),
        "\ud800",
        {"\ud800": 1},
        {(1, 2): 3},
        deep(100_000),
        b"",
        b"  ",
        b"{",
        b"NaN",
        b"1 2",
        b'"\xff"',
        bytearray(b"x"),
        msgspec.Raw(b"{"),
        {"a": msgspec.Raw(b"oops")},
        {"a": msgspec.Raw(b'1},"b":{')},
        {"a": msgspec.Raw(b"")},
        [msgspec.Raw(b'"\xff"')],
        b"[" * 100_000 + b"]" * 100_000,
    ],
    ids=lambda payload: type(payload).__name__,
)
def test_a_payload_without_a_json_form_is_refused(payload: Any) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        Envelope.new("order-1", "OrderPlaced", payload)
    assert caught.value.field == "payload"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("payload", [None, 5, "text", [], b"", b"\n", b"nul"])
def test_a_payload_given_to_the_constructor_must_be_json_as_bytes(payload: Any) -> None:
    with pytest.raises(InvalidEnvelope) as caught:
        envelope(payload=payload)
    assert caught.value.field == "payload"


@pytest.mark.parametrize(
    "time",
    [datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=90)))],  # noqa: DTZ001
)
def test_a_timestamp_needs_a_zone_that_rfc_3339_can_write(time: datetime) -> None:
    with pytest.raises(InvalidEnvelope, match="zone"):
        Envelope.new("a", "T", 1, timestamp=time)


def test_a_text_with_a_lone_surrogate_is_refused() -> None:
    for field in ("event_id", "event_type", "trace_id", "correlation_id"):
        with pytest.raises(InvalidEnvelope, match="lone surrogate"):
            envelope(**{field: "x\udfff"})


# --- making and reading a payload --------------------------------------------------------


def test_a_new_envelope_is_dated_now_and_has_an_id_of_its_own() -> None:
    before = datetime.now(UTC)
    one, two = (Envelope.new("a", "T", None) for _ in range(2))
    assert before <= one.timestamp <= two.timestamp <= datetime.now(UTC)
    assert one.event_id != two.event_id
    assert (one.event_version, one.payload, one.trace_id, one.tenant_id) == (1, b"null", "", 0)


def test_what_is_given_to_new_is_kept() -> None:
    made = Envelope.new(
        "a", "T", Order(1.5), event_version=4, event_id="mine", timestamp=NOON,
        trace_id="t", correlation_id="c", tenant_id=9,
    )  # fmt: skip
    assert made == Envelope("mine", "a", "T", 4, NOON, b'{"total":1.5}', "t", "c", 9)


@pytest.mark.parametrize("raw", [b' {"a":1} \n', bytearray(b'{"a":1}'), msgspec.Raw(b'{"a":1}')])
def test_bytes_are_taken_as_json_already_written(raw: Any) -> None:
    assert Envelope.new("a", "T", raw).payload == b'{"a":1}'


def test_a_payload_is_decoded_into_the_type_asked_for() -> None:
    made = Envelope.new("a", "T", {"total": 2.5})
    assert made.decode(dict) == {"total": 2.5}
    assert made.decode(Order) == Order(2.5)


def test_a_payload_of_another_type_is_an_invalid_envelope() -> None:
    made = Envelope.new("a", "T", {"total": "much"})
    with pytest.raises(InvalidEnvelope, match="Order") as caught:
        made.decode(Order)
    assert caught.value.field == "payload"
    with pytest.raises(InvalidEnvelope):
        envelope(payload=b"[" * 900 + b"]" * 900).decode(dict)


def test_a_type_that_nothing_can_be_decoded_into_is_a_mistake_in_the_program() -> None:
    with pytest.raises(ConfigurationError, match="type"):
        envelope().decode(dict[list[int], int] | dict[str, int])  # type: ignore[arg-type]


def test_an_envelope_cannot_be_changed_and_a_changed_copy_is_checked() -> None:
    made = envelope()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        made.tenant_id = 5  # type: ignore[misc]
    assert attrs.evolve(made, tenant_id=5).tenant_id == 5
    with pytest.raises(InvalidEnvelope):
        attrs.evolve(made, event_version=0)


def test_envelopes_are_values_that_hash_copy_and_pickle() -> None:
    made = Envelope.from_bytes(envelope().encode())
    assert {made, envelope()} == {envelope()}
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made
    assert attrs.asdict(made)["aggregate_id"] == "order-1"
    assert "order-1" in repr(made)


def test_event_ids_are_uuids_of_version_7_that_differ_and_follow_time() -> None:
    import uuid

    before = datetime.now(UTC).timestamp() * 1000 - 1
    ids = [new_event_id() for _ in range(5000)]
    after = datetime.now(UTC).timestamp() * 1000
    assert len(set(ids)) == len(ids)
    for text in ids:
        one = uuid.UUID(text)
        assert str(one) == text
        assert one.variant == uuid.RFC_4122
        assert one.version == 7
        assert before <= one.int >> 80 <= after
    assert len({text[19] for text in ids}) == 4
    times = [uuid.UUID(text).int >> 64 for text in ids]
    assert times == sorted(times)


# --- properties --------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = texts.filter(lambda text: bool(text.strip()))
payloads = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
raw_payloads = st.builds(
    lambda value, indent, ascii_only: json.dumps(
        value, indent=indent, ensure_ascii=ascii_only
    ).encode(),
    payloads,
    st.sampled_from([None, 0, 2]),
    st.booleans(),
)
envelopes = st.builds(
    Envelope,
    names,
    st.from_regex(r"[A-Za-z0-9:_\-./]{1,256}", fullmatch=True),
    names,
    st.integers(1, 2**63 - 1),
    st.datetimes(timezones=st.just(UTC) | zones),
    raw_payloads,
    texts,
    texts,
    st.integers(-(2**63), 2**63 - 1),
)


@given(envelopes)
def test_every_envelope_survives_the_wire(made: Envelope) -> None:
    data = made.encode()
    back = Envelope.from_bytes(data)
    assert back == made
    assert back.timestamp.utcoffset() == made.timestamp.utcoffset()
    assert back.encode() == data
    plain = json.loads(data)
    assert list(plain)[-1] == "payload"
    assert plain["event_id"] == made.event_id


@given(raw_payloads)
def test_every_payload_is_kept_byte_for_byte(raw: bytes) -> None:
    assert Envelope.from_bytes(Envelope.new("a", "T", raw).encode()).payload == raw


@given(payloads)
@example({"a": None, "b": [1.5, None]})
def test_every_payload_is_written_and_decoded_equal(payload: object) -> None:
    assert Envelope.new("a", "T", payload).decode(object) == payload


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_invalid_envelope(data: bytes) -> None:
    with pytest.raises(InvalidEnvelope):
        Envelope.from_bytes(data)


@given(st.data())
def test_a_damaged_body_is_read_or_raises_only_invalid_envelope(data: st.DataObject) -> None:
    good = bytearray(data.draw(envelopes).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(good) - 1))
        good[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read = Envelope.from_bytes(bytes(good))
    except InvalidEnvelope:
        return
    assert Envelope.from_bytes(read.encode()) == read


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=9)
    | st.datetimes() | st.builds(object),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(st.lists(anything, min_size=6, max_size=9))
def test_a_constructor_given_anything_raises_only_invalid_envelope(fields: list[Any]) -> None:
    with pytest.raises(InvalidEnvelope):
        Envelope(*fields)


@pytest.mark.parametrize("event_id", ["x" * 257, "a\nb", "a\r\nb: c", "\x00", "\ufeff"])
def test_an_id_of_ones_own_is_one_that_can_be_published_and_others_are_read(event_id: str) -> None:
    with pytest.raises(InvalidEnvelope, match="1 to 256 printable characters") as caught:
        Envelope.new("order-1", "OrderPlaced", {}, event_id=event_id)
    assert caught.value.field == "event_id"
    assert len(str(caught.value)) < 600
    read = Envelope.from_bytes(body(event_id=event_id))
    assert read.event_id == event_id
    assert Envelope.from_bytes(read.encode()) == read
