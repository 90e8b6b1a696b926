"""Dashboard, alerts and autoscaling ask for metrics that there are, by labels that they have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from tests.docker_files import DOCKER, ROOT, documents, manifests, services
from worker.contract.queue import PRIORITIES
from worker.contract.stages import STAGES
from worker.machine.metrics import DEFINITIONS

LABELS = {definition.name: set(definition.labels) for definition in DEFINITIONS}
VALUES: dict[str, set[str]] = {"priority": set(PRIORITIES), "stage": set(STAGES), "status": {"ok", "failed"}}
OF_SCRAPES = {"instance", "job"}

RULES = documents(DOCKER / "prometheus" / "alerts.yaml")[0]["groups"][0]["rules"]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "deconvoy.json").read_text(encoding="utf-8"))
(SCALED,) = manifests("ScaledObject")
SCALED_BY = SCALED["spec"]["triggers"][0]["metadata"]["query"]

QUERIES = {
    **{f"rule {rule.get('alert', rule.get('record'))}": rule["expr"] for rule in RULES},
    **{
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    },
    "autoscaling": SCALED_BY,
}


def nodes(query: Any) -> Iterator[Any]:
    """All parts of a parsed query."""
    yield query
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (part := getattr(query, name, None)) is not None:
            yield from nodes(part)
    for part in getattr(query, "args", None) or []:
        yield from nodes(part)


@pytest.mark.parametrize("where", QUERIES)
def test_every_query_asks_for_metrics_that_there_are(where: str) -> None:
    parts = [*nodes(promql_parser.parse(QUERIES[where]))]
    selectors = [part for part in parts if isinstance(part, promql_parser.VectorSelector)]
    assert selectors
    labels = OF_SCRAPES.union(*(LABELS.get(str(selector.name), set()) for selector in selectors))
    for selector in selectors:
        name = str(selector.name)
        assert name in LABELS.keys() | RECORDED
        for matcher in selector.matchers.matchers:
            assert matcher.name in LABELS[name]
            assert matcher.value in VALUES[matcher.name]
    for part in parts:
        if (modifier := getattr(part, "modifier", None)) is not None:
            named = re.findall(r"(?:by|on) \(([^)]*)\)", str(modifier))
            assert {
                label.strip() for labels in named for label in labels.split(",") if label.strip()
            } <= labels


def test_what_is_read_at_a_rate_is_a_counter_and_nothing_else() -> None:
    counters = {definition.name for definition in DEFINITIONS if definition.kind == "counter"}
    for query in QUERIES.values():
        for part in nodes(promql_parser.parse(query)):
            if isinstance(part, promql_parser.Call) and part.func.name in ("rate", "increase"):
                assert part.args[0].vector_selector.name in counters


def test_autoscaling_counts_what_waits_and_what_is_held_as_the_manual_says() -> None:
    manual = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = re.findall(r"^```promql\n(max\(.*\))$", manual, re.MULTILINE)
    recorded = [rule["expr"] for rule in RULES if "record" in rule]
    assert [SCALED_BY] == documented == recorded


def test_labels_in_the_texts_of_alerts_are_those_of_their_query() -> None:
    for name, rule in ALERTS.items():
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        known = OF_SCRAPES.union(*(LABELS[metric] for metric in LABELS if metric in rule["expr"]))
        assert used <= known, name
        # A sum over all machines has no labels left.
        assert not used or "sum(" not in rule["expr"], name


def test_every_alert_is_explained_and_no_other() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(Deconvoy\w+)` \| (\w+) \|", manual, re.MULTILINE)
    assert dict(rows) == {name: rule["labels"]["severity"] for name, rule in ALERTS.items()}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])
    assert {name for name in LABELS if name not in shown} == set()


def test_the_panels_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_is_given_the_dashboard_and_its_source() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = documents(provisioning / "datasources" / "prometheus.yaml")[0]["datasources"]
    (provider,) = documents(provisioning / "dashboards" / "deconvoy.yaml")[0]["providers"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    mounts = dict(volume.split(":")[:2] for volume in services("compose.yaml")["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_finds_rules_and_workers() -> None:
    (configuration,) = documents(DOCKER / "prometheus" / "prometheus.yaml")
    assert configuration["rule_files"] == ["/etc/prometheus/alerts.yaml"]
    (job,) = configuration["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) <= set(services("compose.yaml"))
    assert found["port"] == 9100
    assert "./prometheus:/etc/prometheus:ro" in services("compose.yaml")["prometheus"]["volumes"]


def test_severities_are_these_three() -> None:
    assert {rule["labels"]["severity"] for rule in ALERTS.values()} == {"critical", "warning", "info"}
