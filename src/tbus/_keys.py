"""What a message is ordered by.

The key is looked for in the envelope, then in the headers, then where the transport
itself carries one: the order that the original's services use, so that one event has one
key whoever published it. The envelope that is decoded on the way is kept.
"""

from __future__ import annotations

from ._envelope import Envelope
from ._errors import InvalidEnvelope
from ._message import Delivery

KEY_HEADERS = ("X-Aggregate-ID", "x-aggregate-id", "Aggregate-ID", "aggregate-id")
"""In order of preference."""


def find_key(delivery: Delivery) -> tuple[str | None, Envelope | InvalidEnvelope | None]:
    """The key, or None, and what is known of the envelope: itself, why the body is none, or
    None where nobody has looked."""
    if delivery.keyed:
        return delivery.key, None
    decoded: Envelope | InvalidEnvelope | None = None
    if delivery.body[:1] == b"{":
        try:
            envelope = Envelope.from_bytes(delivery.body)
        except InvalidEnvelope as error:
            decoded = error
        else:
            return envelope.aggregate_id, envelope
    if delivery.headers:
        for wanted in KEY_HEADERS:
            for name, value in delivery.headers:
                if name == wanted and value:
                    return value, decoded
    return delivery.key, decoded
