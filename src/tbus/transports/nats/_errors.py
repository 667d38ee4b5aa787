"""What the server answers, as exceptions; and those as the user's.

Only this room knows the server's error codes. Source: the error list that nats-server is
built from (`server/errors.json`).
"""

from __future__ import annotations

from ..._errors import ConfigurationError, PublishRefused, SubscriptionFailed, TbusError

STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
STREAM_EXISTS = 10058
MESSAGE_NOT_FOUND = 10037
WRONG_REVISION = 10071
JETSTREAM_OFF = frozenset({10039, 10076})
FULL = frozenset({10023, 10028, 10047, 10077})
"""No storage, no memory, no resources, a limit of the stream reached."""


class SessionLost(Exception):
    """The connection ended before there was an answer."""


class NoResponders(Exception):
    """Nobody listens on the subject: no such stream, or JetStream is not ready."""


class NoAnswer(Exception):
    """The server did not answer in time."""


class ApiError(Exception):
    """The server answered with an error."""

    def __init__(self, error: dict[str, object]) -> None:
        self.code = int(str(error.get("code", 0)))
        self.err_code = int(str(error.get("err_code", 0)))
        self.description = str(error.get("description", "no description"))
        super().__init__(f"{self.description} (error {self.err_code or self.code})")


def refused(topic: str, error: ApiError) -> PublishRefused:
    """Why the server did not store an event."""
    if error.err_code in FULL:
        return PublishRefused(
            f"the broker has no room for topic {topic!r}: {error}. Nothing was dropped for it:"
            " raise the topic's limits, or the server's storage, and publish again"
        )
    return PublishRefused(f"the broker refused an event of topic {topic!r}: {error}")


def not_possible(what: str, error: ApiError) -> TbusError:
    """Why the server would not make or change something."""
    if error.err_code in JETSTREAM_OFF:
        return ConfigurationError(
            f"{what}: JetStream is not enabled on this server, or for this account: start it"
            " with -js, or ask its operator"
        )
    if error.err_code == STREAM_NOT_FOUND:
        return SubscriptionFailed(f"{what}: its stream was removed just now: try again ({error})")
    return SubscriptionFailed(f"{what}: {error}")
