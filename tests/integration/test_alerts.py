"""The alert rules and the dashboard: they fire when they should, and keep clusters apart."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.promql import Samples, evaluate

RULES = ROOT / "docs" / "alerts.yml"
CASES = ROOT / "tests" / "support" / "alerts.yml"
RULE = re.compile(r"- alert: (\w+)\n +expr: (?:\|\n((?: {10}.*\n)+)|(.*)\n)")
ALERTS = {name: block or line for name, block, line in RULE.findall(RULES.read_text())}
NO_CONTROLLER = ALERTS["ZelectNoController"]
METRIC = re.compile(r"\bzelect_\w+")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not installed")
def test_promtool_takes_the_rules_and_their_cases(tmp_path: Path) -> None:
    for path, name in ((RULES, "alerts.yml"), (CASES, "cases.yml")):
        shutil.copy(path, tmp_path / name)
    for words in (("check", "rules", "alerts.yml"), ("test", "rules", "cases.yml")):
        done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_keeps_the_cluster_is_documented_and_has_a_case() -> None:
    documented = set(METRIC.findall((ROOT / "docs" / "http.md").read_text()))
    assert len(ALERTS) == RULES.read_text().count("- alert:")
    for name, expression in ALERTS.items():
        assert f"alertname: {name}" in CASES.read_text()
        assert set(METRIC.findall(expression)) <= documented
        for aggregate in re.findall(r"\b(?:max|min|sum|count)\b(.{13})", expression):
            assert aggregate.startswith(" by (cluster")
        assert name in (ROOT / "docs" / "http.md").read_text()


def fires(samples: Samples, now_s: float, expression: str = NO_CONTROLLER) -> set[str]:
    """The clusters that the rule names."""
    return {dict(labels)["cluster"] for labels in evaluate(expression, samples, now_s)}


def scraped(samples: Samples, at_s: float, cluster: str, nodes: dict[str, int | None], active: str = "") -> None:
    """A scrape of `nodes`: whom each knows as controller, None where the scrape failed."""
    for node, controller in nodes.items():
        alive = controller is not None
        samples.add(at_s, "zelect_active", float(node == active) if alive else None, cluster=cluster, node=node)
        samples.add(at_s, "zelect_controller_id", controller, cluster=cluster, node=node)


def test_the_alert_fires_for_the_cluster_without_a_controller_and_no_other() -> None:
    samples = Samples()
    scraped(samples, 0, "a", {"1": 1, "2": 1}, "1")
    scraped(samples, 0, "b", {"1": 1, "2": 1}, "1")
    assert fires(samples, 5) == set()
    scraped(samples, 10, "a", {"1": 1, "2": 1}, "1")
    scraped(samples, 10, "b", {"1": 0, "2": 0})
    assert fires(samples, 15) == {"b"}


def test_the_alert_fires_when_all_nodes_are_dead() -> None:
    samples = Samples()
    scraped(samples, 0, "a", {"1": 1, "2": 1}, "1")
    scraped(samples, 10, "a", {"1": None, "2": None})
    assert fires(samples, 15) == {"a"}
    assert fires(samples, 3600) == {"a"}
    assert fires(samples, 2 * 86_400) == set(), "it was switched off for good"
    assert fires(samples, 15, ALERTS["ZelectNodeDown"]) == {"a"}


def test_the_alert_does_not_fire_while_followers_name_a_controller() -> None:
    samples = Samples()
    scraped(samples, 0, "a", {"1": 1, "2": 1}, "1")
    scraped(samples, 10, "a", {"1": None, "2": 1})
    assert fires(samples, 15) == set()
    assert fires(samples, 15, ALERTS["ZelectNodeDown"]) == {"a"}


def test_every_panel_shows_one_cluster() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert not variables["cluster"].get("multi")
    assert not variables["cluster"].get("includeAll")
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert expressions
    for expression in expressions:
        for metric in re.findall(r"\b(?:zelect|process)_\w+(.{19})", expression):
            assert metric == '{cluster="$cluster"'
