"""How a client verifies a server, and proves itself: what every broker's options share."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol


class TlsOptions(Protocol):
    """The part of a broker's options that is about TLS."""

    @property
    def ca(self) -> Path | None: ...
    @property
    def cert(self) -> Path | None: ...
    @property
    def key(self) -> Path | None: ...
    @property
    def insecure(self) -> bool: ...


def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """A context that verifies certificate and name, unless the options say `insecure`."""
    context = ssl.create_default_context(cafile=None if options.ca is None else str(options.ca))
    if options.cert is not None:
        context.load_cert_chain(
            str(options.cert), None if options.key is None else str(options.key)
        )
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
