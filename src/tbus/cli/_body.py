"""A message's body as fields of a JSON object."""

from __future__ import annotations

import base64
import json
from typing import Any

from .._envelope import Envelope
from .._errors import InvalidEnvelope


def body_fields(body: bytes) -> dict[str, Any]:
    """`event`: an envelope; else `body`: text; else `body_base64`."""
    try:
        Envelope.from_bytes(body)
        return {"event": json.loads(body)}
    except (InvalidEnvelope, ValueError, RecursionError):
        pass
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
