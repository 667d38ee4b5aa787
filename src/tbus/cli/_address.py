"""Where a command connects to: its `--url`, checked before anything is started."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .._config import BusConfig, PlaintextCredentials
from .._errors import ConfigurationError
from .._topic import check_group, check_topic

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_URL = "nats://127.0.0.1:4222"

BACKENDS = {"memory": "memory://", "nats": "nats+embedded://", "kafka": "kafka+embedded://"}
"""Brokers that are started for a command, or need none."""


def load_config(url: str, **overrides: Any) -> BusConfig:
    """The configuration that a URL, or a path to a file, stands for.

    Raises:
        click.UsageError: it stands for none. It says so without any password that was typed.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PlaintextCredentials)
            config = BusConfig.load(url, **overrides)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    for warning in caught:
        click.echo(f"tbus: warning: {warning.message}", err=True)
    # Opening a bus would say it again.
    warnings.simplefilter("ignore", PlaintextCredentials)
    return config


def as_topic(_context: click.Context, _parameter: click.Parameter, name: str) -> str:
    """For `callback=`: a topic's name."""
    return _checked(check_topic, name)


def as_group(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    """For `callback=`: a group's name, if one is given."""
    return None if name is None else _checked(check_group, name)


def _checked(check: Callable[[str], str], name: str) -> str:
    try:
        return check(name)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error


def _as_config(_context: click.Context, _parameter: click.Parameter, url: str) -> BusConfig:
    return load_config(url)


def url_option(function: F) -> F:
    """`--url`, given to the command as `config`."""
    return click.option(
        "--url",
        "config",
        callback=_as_config,
        envvar="TBUS_URL",
        default=DEFAULT_URL,
        help=f"The broker, or a file with a configuration. [TBUS_URL, else {DEFAULT_URL}]",
    )(function)


def json_option(function: F) -> F:
    """`--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, and only that.")(
        function
    )
