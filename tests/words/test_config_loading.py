"""Where a configuration comes from, and that no secret shows on the way."""

from __future__ import annotations

import traceback
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbus._config import (
    BusConfig,
    KafkaOptions,
    MemoryOptions,
    NatsOptions,
    PlaintextCredentials,
)
from tbus._errors import ConfigurationError
from tbus._retry import Backoff

SECRET = "s3cr3t-W0rd"

hosts = st.sampled_from(["a", "broker-1.example.org", "127.0.0.1", "[::1]", "[2001:db8::5]"])
ports = st.integers(1, 65535)
# Lone surrogates have no UTF-8, so nothing percent-encodes them.
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def told(error: BaseException) -> str:
    """Everything about an error that may end in a log."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("memory://", "memory://"),
        ("memory://shop", "memory://shop"),
        ("nats://", "nats://127.0.0.1:4222"),
        ("nats://a:1,b", "nats://a:1,b:4222"),
        ("nats://[::1]", "nats://[::1]:4222"),
        ("nats://[::1]:5,b:6", "nats://[::1]:5,b:6"),
        ("tls://a", "tls://a:4222"),
        ("NATS://a", "nats://a:4222"),
        ("nats+embedded://", "nats+embedded://"),
        ("nats+embedded://?store=/var/x", "nats+embedded://"),
        ("kafka://a,b:1", "kafka://a:9092,b:1"),
        ("kafka+embedded://", "kafka+embedded://"),
    ],
)
def test_a_url_names_the_bus(url: str, address: str) -> None:
    assert BusConfig.load(url).address == address


@given(st.lists(st.tuples(hosts, ports), min_size=1, max_size=4))
def test_all_hosts_of_a_url_are_kept_in_order(servers: list[tuple[str, int]]) -> None:
    joined = [f"{host}:{port}" for host, port in servers]
    assert BusConfig.load("nats://" + ",".join(joined)).nats.servers == tuple(joined)


@given(user=words, password=words)
def test_whatever_user_and_password_are_percent_encoding_carries_them(
    user: str, password: str
) -> None:
    url = f"nats://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1"
    options = BusConfig.load(url).nats
    assert (options.user, options.password) == (user, password)


def test_a_lone_name_before_the_host_is_a_token_for_nats() -> None:
    options = BusConfig.load("nats://t%3Ak@127.0.0.1").nats
    assert (options.user, options.token) == (None, "t:k")


def test_a_query_sets_options_of_the_urls_backend() -> None:
    config = BusConfig.load(
        "nats+embedded://?store=/var/x&ack_wait=2.5&replicas=3&insecure=true&reconnect_attempts=7"
    )
    assert config.backend == "nats"
    assert config.embedded
    assert config.nats == NatsOptions(
        store=Path("/var/x"), ack_wait=2.5, replicas=3, insecure=True, reconnect_attempts=7
    )


def test_an_empty_number_in_a_query_is_none_where_none_is_allowed() -> None:
    assert BusConfig.load("memory://?max_bytes=").memory.max_bytes is None


def test_overrides_win_over_the_url_and_leave_the_rest_of_it() -> None:
    config = BusConfig.load("nats://a:1?ack_wait=9", nats={"storage": "memory"}, concurrency=3)
    assert config.nats == NatsOptions(servers=("a:1",), ack_wait=9.0, storage="memory")
    assert config.concurrency == 3


def test_an_instance_of_a_section_does_not_undo_the_url() -> None:
    config = BusConfig.load("nats://a:1?ack_wait=9", nats=NatsOptions(storage="memory"))
    assert config.nats == NatsOptions(servers=("a:1",), ack_wait=9.0, storage="memory")


def test_a_backoff_given_whole_is_taken_whole() -> None:
    config = BusConfig.load("nats://a", nats={"reconnect": Backoff()})
    assert config.nats.reconnect == Backoff()
    assert config.nats.reconnect != NatsOptions().reconnect


def test_a_backoff_given_as_a_dict_keeps_what_it_does_not_name() -> None:
    config = BusConfig.load("nats://a", nats={"reconnect": {"initial": "0.5"}})
    assert config.nats.reconnect == Backoff(initial=0.5, factor=2.0, maximum=5.0, jitter=0.2)


def test_a_configuration_is_a_place_to_start_from() -> None:
    first = BusConfig(memory=MemoryOptions(name="x"), source="shop")
    assert BusConfig.load(first) == first
    assert BusConfig.load(first, grace=1).memory.name == "x"


def test_toml_holds_the_same_fields_and_the_url(tmp_path: Path) -> None:
    file = tmp_path / "bus.toml"
    file.write_text(
        'url = "nats://a:1?ack_wait=9"\nconcurrency = 5\ntopics = ["x", "y.z"]\n'
        '[nats]\nstorage = "memory"\n[nats.reconnect]\nmaximum = 9\n'
    )
    config = BusConfig.load(str(file), concurrency=6)
    assert config.nats.servers == ("a:1",)
    assert config.nats.ack_wait == 9.0
    assert config.nats.storage == "memory"
    assert config.nats.reconnect.maximum == 9
    assert config.topics == ("x", "y.z")
    assert config.concurrency == 6


def test_a_file_wins_over_the_url_in_it(tmp_path: Path) -> None:
    file = tmp_path / "bus.toml"
    file.write_text('url = "nats://a:1?ack_wait=9&replicas=3"\n[nats]\nack_wait = 4\n')
    assert BusConfig.load(file).nats == NatsOptions(servers=("a:1",), ack_wait=4, replicas=3)


def test_yaml_holds_the_same_fields(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "bus.yaml"
    file.write_text("backend: kafka\nkafka:\n  servers: [a, 'b:1']\n  partitioner: fnv1a\n")
    config = BusConfig.load(file)
    assert config.kafka == KafkaOptions(servers=("a:9092", "b:1"), partitioner="fnv1a")


def test_an_empty_yaml_file_is_the_default(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    file = tmp_path / "bus.yml"
    file.write_text("")
    assert BusConfig.load(file) == BusConfig()


def test_yaml_without_pyyaml_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    file = tmp_path / "bus.yaml"
    file.write_text("grace: 1\n")
    with pytest.raises(ConfigurationError, match=r"tbus\[yaml\]"):
        BusConfig.load(file)


@pytest.mark.parametrize(
    ("where", "overrides", "nearest"),
    [
        ("memory://", {"concurency": 1}, "nearest is concurrency"),
        ("nats://a", {"nats": {"storge": "file"}}, r"nearest is nats\.storage"),
        ("nats://a?conect_timeout=1", {}, r"nearest is nats\.connect_timeout"),
        (
            "nats://a",
            {"nats": {"reconnect": {"inital": 1}}},
            r"nearest is nats\.reconnect\.initial",
        ),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest_known_one(
    where: str, overrides: dict[str, object], nearest: str
) -> None:
    with pytest.raises(ConfigurationError, match=nearest):
        BusConfig.load(where, **overrides)


@pytest.mark.parametrize(
    ("where", "overrides", "field"),
    [
        ("memory://?max_bytes=lots", {}, "memory.max_bytes"),
        ("nats://a?insecure=maybe", {}, "nats.insecure"),
        ("nats://a?ack_wait=nan", {}, "ack_wait"),
        ("nats://a?ack_wait=1e999", {}, "ack_wait"),
        ("memory://", {"concurrency": 0}, "concurrency"),
        ("memory://", {"concurrency": True}, "concurrency"),
        ("memory://", {"concurrency": 1.5}, "concurrency"),
        ("memory://", {"grace": -1}, "grace"),
        ("memory://", {"grace": 10**400}, "grace"),
        ("memory://", {"backend": "rabbit"}, "backend"),
        ("memory://", {"nats": 5}, "nats"),
        ("memory://", {"nats": KafkaOptions()}, "nats"),
        ("memory://", {"embedded": True}, "embedded"),
        ("memory://", {"topics": 5}, "topics"),
        ("nats://a", {"nats": {"storage": ["file"]}}, "storage"),
        ("nats://a", {"nats": {"reconnect": "fast"}}, "nats.reconnect"),
        ("nats://a", {"nats": {"servers": []}}, "servers"),
        ("nats://a", {"nats": {"cert": "c.pem"}}, "cert"),
        ("nats://a", {"nats": {"ca": 5}}, "ca"),
        ("nats://a", {"nats": {"password": "p"}}, "password"),
        ("kafka://a", {"kafka": {"user": "u"}}, "user"),
        ("kafka://a", {"kafka": {"mechanism": "GUESS"}}, "mechanism"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_field(
    where: str, overrides: dict[str, object], field: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BusConfig.load(where, **overrides)
    assert caught.value.field == field
    assert field in str(caught.value)


@pytest.mark.parametrize("where", ["", "memory", "localhost:4222", 5, None, "bus.json"])
def test_what_is_neither_url_nor_file_is_refused(where: str) -> None:
    with pytest.raises(ConfigurationError, match="give a URL"):
        BusConfig.load(where)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        BusConfig.load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:{}@h:99999",
        "nats://u:{}@h:port",
        "nats://u:{}@h/path",
        "nats://u:{}@h#part",
        "nats://u:{}@h?password=x",
        "nats://u:{}@a,v:{}@b",
        "nats://u:a/{}@h",
        "nats://u:a?{}@h",
        "nats://u:a#{}@h",
        "nats://u:a@{}@h",
        "nats://u:{}@[::zz]",
        "nats://u:{}@",
        "nats://u:{}@h\nx",
        "nats://h:{}",
        "nats://{}@h?user=x",
        "rabbit://u:{}@h",
        "nats+embedded://u:{}@",
        "kafka://:{}@h?user=",
        "u:{}@h",
        "u:{}",
        "nats:u:{}@h",
        "token={}",
        "rabbit://h/{}",
        "rabbit://h?token={}",
        "rabbit://u:{}",
    ],
)
@pytest.mark.filterwarnings("ignore::tbus._config.PlaintextCredentials")
def test_no_error_about_a_url_shows_its_secrets(url: str) -> None:
    try:
        config = BusConfig.load(url.format(*[SECRET] * 2))
        shown = repr(config) + config.address
    except ConfigurationError as error:
        shown = told(error)
    assert SECRET not in shown


@pytest.mark.parametrize("url", ["nats://u:p@a,v:q@b", "nats://u:p@q@a"])
def test_a_second_at_sign_is_refused_and_not_taken_for_part_of_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="%40"):
        BusConfig.load(url)


@pytest.mark.parametrize("name", ["password", "token"])
@pytest.mark.parametrize("value", [SECRET.encode(), [SECRET], {SECRET: SECRET}])
def test_no_error_about_a_secrets_type_shows_it(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BusConfig.load("nats://127.0.0.1", nats={"user": "u", name: value})
    assert SECRET not in str(caught.value) + repr(vars(caught.value))


@pytest.mark.parametrize("name", ["bus.toml", "bus.yaml"])
@pytest.mark.parametrize("line", ["password: [{}", "password = '{}", "\t{}: @", "{}", "- {}"])
def test_no_error_about_a_files_syntax_quotes_it(tmp_path: Path, name: str, line: str) -> None:
    file = tmp_path / name
    file.write_text(line.format(SECRET))
    with pytest.raises(ConfigurationError) as caught:
        BusConfig.load(file)
    shown = str(caught.value) + repr(vars(caught.value))
    assert SECRET not in shown
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__context__)


def test_no_repr_shows_a_secret() -> None:
    nats = NatsOptions(user="u", password=SECRET)
    kafka = KafkaOptions(user="u", password=SECRET)
    assert SECRET not in repr(BusConfig(nats=nats, kafka=kafka))
    assert SECRET not in repr(NatsOptions(token=SECRET))


@pytest.mark.parametrize(
    "url",
    ["nats://u:p@h", "nats://t@h", "kafka://u:p@h", "nats://u:p@127.0.0.1,h", "nats://u:p@[::2]"],
)
def test_credentials_that_would_cross_a_network_in_plain_warn(url: str) -> None:
    with pytest.warns(PlaintextCredentials, match="without TLS") as caught:
        BusConfig.load(url)
    assert caught[0].filename == __file__
    assert "u:p" not in str(caught[0].message)


@pytest.mark.parametrize(
    "url",
    [
        "tls://u:p@h",
        "kafka://u:p@h?tls=true",
        "nats://u:p@127.0.0.9",
        "nats://u:p@[::1]:9",
        "nats://u:p@localhost",
        "nats://h",
        "nats://h?user=u",
    ],
)
def test_credentials_that_stay_here_or_are_covered_do_not_warn(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        BusConfig.load(url)


@pytest.mark.filterwarnings("ignore::tbus._config.PlaintextCredentials")
@given(st.text(), st.sampled_from(["", "nats://", "memory://", "kafka://", "tls://", "nats://h?"]))
def test_any_text_is_a_configuration_or_a_configuration_error(text: str, scheme: str) -> None:
    try:
        BusConfig.load(scheme + text)
    except ConfigurationError:
        pass
