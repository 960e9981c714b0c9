"""sidecar.proxy.facts: the engine's figures in the contract's words."""

import json

from prometheus_client.parser import text_string_to_metric_families

import relaycore
from relaycore import COUNTERS, HISTOGRAMS, LANES, PHASES, REASONS, Histogram, LiveFlow
from sidecar.proxy.facts import COUNTER_HELP, HISTOGRAM_HELP, Facts, Limits, Shown
from sidecar.report import exposition
from tests.unit.sidecar.conftest import Load


class Engine:
    """Two listeners that have seen something."""

    live = 3
    running = 2

    def opened(self) -> list[int]:
        return [4, 5]

    def reasons(self) -> list[dict[str, int]]:
        return [dict.fromkeys(REASONS, 0), {**dict.fromkeys(REASONS, 0), "finished": 2}]

    def bytes(self) -> list[tuple[int, int]]:
        return [(1, 2), (3, 4)]

    def counters(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(COUNTERS)}

    def dial_errors(self) -> dict[str, int]:
        return {"ECONNREFUSED": 9}

    def histograms(self) -> list[dict[str, Histogram]]:
        return [{name: Histogram((1.0, 2.0), (1, 2, 3), 4.5) for name in HISTOGRAMS} for _ in range(2)]


def facts(load: Load) -> Facts:
    outbound, inbound = load("").listeners
    shown = [Shown(outbound, 15002, ["0.0.0.0:15002"]), Shown(inbound, 15006, ["0.0.0.0:15006", "[::]:15006"])]
    return Facts(Engine(), shown)  # type: ignore[arg-type]


def test_an_access_record_has_the_fields_of_the_contract(load: Load) -> None:
    """Every dashboard that reads the log would break."""
    outbound, inbound = facts(load).access(lambda number: number)
    assert list(inbound.items()) == [
        ("flow", 0),
        ("listener", "inbound"),
        ("direction", "inbound"),
        ("client", 1),
        ("origin", 2),
        ("bytes_sent", 3),
        ("bytes_received", 4),
        ("duration_ms", 5),
        ("connect_ms", 6),
        ("lane", 7),
        ("reason", 8),
        ("error", 9),
    ]
    assert (outbound["listener"], outbound["direction"]) == ("outbound", "outbound")


def test_a_live_flow_is_a_row(load: Load) -> None:
    """`flows` would show raw clocks and codes."""
    flow = LiveFlow(
        flow=1,
        listener=0,
        worker=1,
        client=("10.0.0.1", 1),
        origin=None,
        bytes_sent=2,
        bytes_received=3,
        started_ns=1_000_000_000,
        active_ns=2_000_000_000,
        connect_ns=-1,
        phase=PHASES.index("dialling"),
        lane=LANES.index("copy"),
        pending_sent=4,
        pending_received=5,
        half_closed=3,
    )
    row = facts(load).live_flow(flow, now_ns=2_500_000_000)
    assert (row["listener"], row["phase"], row["lane"], row["origin"]) == ("outbound", "dialling", "copy", None)
    assert (row["age_ms"], row["idle_ms"], row["half_closed"]) == (1500, 500, "both")
    assert facts(load).live_flow(flow, now_ns=0)["age_ms"] == 0


def test_stats_can_be_sent_as_json(load: Load) -> None:
    """`stats --json` would end in a traceback."""
    stats = json.loads(json.dumps(facts(load).stats()))
    assert stats["listeners"][1] == {
        "name": "inbound",
        "direction": "inbound",
        "capture": "redirect",
        "addresses": ["0.0.0.0:15006", "[::]:15006"],
        "opened": 5,
        "bytes_sent": 3,
        "bytes_received": 4,
        "closed": {"finished": 2},
    }


def metrics(load: Load, rules_work: bool | None = None) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    families = facts(load).families(ready=True, limits=Limits(1, 2, 3, 4), log_dropped=8, rules_work=rules_work)
    text = exposition(families)
    return {
        family.name: [(sample.name, sample.labels, sample.value) for sample in family.samples]
        for family in text_string_to_metric_families(text)
    }


def test_metrics_have_ztunnels_names_where_they_fit(load: Load) -> None:
    """Dashboards that users have would stay empty."""
    found = metrics(load)
    labels = {"listener": "inbound", "direction": "inbound"}
    assert found["tcp_connections_opened"][1] == ("tcp_connections_opened_total", labels, 5)
    assert ("tcp_connections_closed_total", {**labels, "reason": "finished"}, 2) in found["tcp_connections_closed"]
    assert found["tcp_sent_bytes"][1] == ("tcp_sent_bytes_total", labels, 3)
    assert found["tcp_received_bytes"][1] == ("tcp_received_bytes_total", labels, 4)


def test_every_counter_histogram_and_limit_is_a_metric(load: Load) -> None:
    """A limit would be hit, and no alarm could be built on it."""
    found = metrics(load)
    for number, name in enumerate(COUNTERS):
        assert found[f"relay_{name}"] == [(f"relay_{name}_total", {}, number)]
    for name in HISTOGRAMS:
        assert (f"relay_{name}_sum", {"listener": "outbound", "direction": "outbound"}, 4.5) in found[f"relay_{name}"]
    assert found["relay_dial_errors"] == [("relay_dial_errors_total", {"errno": "ECONNREFUSED"}, 9)]
    assert [(labels["limit"], value) for _, labels, value in found["relay_limit"]] == [
        ("flows", 1),
        ("open_files", 2),
        ("pipes", 3),
        ("pending_bytes", 4),
    ]
    assert found["relay_log_records_dropped"][0][2] == 8
    assert found["relay_build_info"][0][1] == {"version": "0.1.0", "build": relaycore.BUILD}


def test_rules_have_a_figure_where_somebody_can_tell(load: Load) -> None:
    """An alarm would go off for each relay that runs without privileges, or never."""
    assert "relay_rules_ok" not in metrics(load)
    assert metrics(load, rules_work=True)["relay_rules_ok"] == [("relay_rules_ok", {}, 1)]
    assert metrics(load, rules_work=False)["relay_rules_ok"] == [("relay_rules_ok", {}, 0)]


def test_every_name_of_the_engine_is_explained() -> None:
    """The metrics page would fail with a counter that somebody added."""
    assert set(COUNTER_HELP) == set(COUNTERS)
    assert set(HISTOGRAM_HELP) == set(HISTOGRAMS)


def test_labels_are_from_closed_sets(load: Load) -> None:
    """A label with addresses would make a time series per client, and fill the monitoring."""
    names = {name for samples in metrics(load).values() for _, labels, _ in samples for name in labels}
    assert names == {"listener", "direction", "reason", "errno", "limit", "le", "version", "build"}
