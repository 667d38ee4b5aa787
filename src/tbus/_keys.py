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


def find_key(delivery: Delivery) -> tuple[str | None, Envelope | None]:
    """The key, or None, and the envelope where it was decoded on the way."""
    if delivery.keyed:
        return delivery.key, None
    body = delivery.encoded()
    if body[:1] == b"{":
        try:  # not `suppress`, which takes as long as all the rest of this
            envelope = Envelope.from_bytes(body)
        except InvalidEnvelope:
            pass
        else:
            return envelope.aggregate_id, envelope
    if delivery.headers:
        for wanted in KEY_HEADERS:
            for name, value in delivery.headers:
                if name == wanted and value:
                    return value, None
    return delivery.key, None
