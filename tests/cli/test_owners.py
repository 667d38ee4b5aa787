"""`lag` and `topics --groups` tell who reads what, against a real nats-server."""

from __future__ import annotations

import json
import re

from tests.cli.kit import started

MEMBER = r"[A-Za-z0-9-]+-\d+-[0-9a-f]{8}-1"


def test_lag_tells_members_owners_and_epochs_while_somebody_reads(call, nats_server):
    url = ("--url", nats_server.url)
    call("pub", "orders", "a", *url)
    with started("sub", "orders", "--group", "g", *url) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code, out, _ = call("lag", "orders", "g", *url)
        first, members, owner = out.splitlines()
        assert code == 0
        assert re.fullmatch(r"g is \d messages? behind in orders", first)
        assert re.fullmatch(rf"  1 member: {MEMBER}", members)
        assert re.fullmatch(rf"  partition 0: \d, read by {MEMBER} \(epoch 1\)", owner)
        found = json.loads(call("lag", "orders", "g", "--json", *url)[1])
        [partition] = found["partitions"]
        assert found["members"] == [partition["owner"]]
        assert (partition["epoch"], partition["heir"]) == (1, None)
        process.terminate()
        process.communicate(timeout=30)
    _, out, _ = call("lag", "orders", "g", *url)
    assert out == "g is 0 messages behind in orders\n"


def test_topics_with_groups_tell_partitions_and_who_reads_them(call, nats_server):
    url = ("--url", nats_server.url)
    call("pub", "empty", "a", *url)
    call("pub", "orders", "a", *url)
    with started("sub", "orders", "--group", "g", *url) as process:
        assert process.stdout is not None
        process.stdout.readline()
        code, out, _ = call("topics", "--groups", *url)
        assert code == 0
        empty, orders, group, member = out.splitlines()
        assert (empty, orders) == ("empty: 1 partition", "orders: 1 partition")
        assert re.fullmatch(r"  g: \d messages? behind", group)
        assert re.fullmatch(rf"    {MEMBER}: partition 0", member)
        found = json.loads(call("topics", "--groups", "--json", *url)[1])
        process.terminate()
        process.communicate(timeout=30)
    assert [(one["topic"], one["partitions"]) for one in found] == [("empty", 1), ("orders", 1)]
    assert [one["group"] for one in found[1]["groups"]] == ["g"]
    assert found[0]["groups"] == []
