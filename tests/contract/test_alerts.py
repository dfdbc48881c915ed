"""The alerts, dashboards and runbooks of deploy/ and docs/: promtool's own checks, and that they name only what is."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.metrics import METRICS, PROCESS_METRICS
from tools.promtool import NotFound, find

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus" / "hub-alerts.yml"
ROUTES = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
RULE_TESTS = sorted((ROOT / "tests" / "prometheus").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
#: Prometheus makes this one of every scrape.
OF_PROMETHEUS = {"up"}
WORDS = {"by", "and", "or", "on", "le", "without", "unless", "offset", "ignoring", "group_left", "bool"}


def run(program: str, *arguments: str) -> str:
    try:
        path = find(program)
    except NotFound as error:
        pytest.fail(str(error), pytrace=False)
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def metrics_in(expression: str) -> set[str]:
    """The metrics that a PromQL expression names: identifiers that are no function, keyword, label or string."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"|\b(?:by|without|on|ignoring)\s*\([^)]*\)", " ", expression)
    named = re.findall(r"(?<![\w:$.])[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", bare)
    return {name for name in named if name not in WORDS}


def exported() -> set[str]:
    names = {*PROCESS_METRICS, *OF_PROMETHEUS}
    for metric in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    return names


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def dashboard_expressions(path: Path) -> list[str]:
    board = json.loads(path.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    chosen = [re.sub(r"^label_values\((.*), \w+\)$", r"\1", each["query"]) for each in board["templating"]["list"]]
    return asked + chosen


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    run("promtool", "check", "rules", str(RULES))
    run("promtool", "check", "config", str(ROOT / "deploy" / "prometheus" / "prometheus.yml"))


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_every_alert_fires_when_it_should_and_only_then(path: Path) -> None:
    run("promtool", "test", "rules", str(path))


def test_promtool_finds_a_rule_that_is_wrong(tmp_path: Path) -> None:
    flow = (ROOT / "tests" / "prometheus" / "flow.yml").read_text()
    (tmp_path / "rules.yml").write_text(RULES.read_text().replace("> 0.05", "> 0.5"))
    (tmp_path / "test.yml").write_text(flow.replace("../../deploy/prometheus/hub-alerts.yml", "rules.yml"))

    with pytest.raises(AssertionError, match="IntegrationFailureRateHigh"):
        run("promtool", "test", "rules", str(tmp_path / "test.yml"))


def test_every_alert_is_tested_to_fire_and_to_stay_silent() -> None:
    fired: set[tuple[str, str]] = set()
    silent: set[str] = set()
    for path in RULE_TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                fired |= {(check["alertname"], each["exp_labels"]["severity"]) for each in check["exp_alerts"]}
                silent |= set() if check["exp_alerts"] else {check["alertname"]}

    assert fired == {(alert["alert"], alert["labels"]["severity"]) for alert in alerts()}
    assert silent == {alert["alert"] for alert in alerts()}


def test_every_alert_names_its_runbook_and_every_runbook_an_alert() -> None:
    linked = {alert["annotations"]["runbook_url"]: alert["alert"] for alert in alerts()}
    pages = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "docs" / "runbooks").glob("*-*.md")}

    assert linked.keys() == pages.keys()
    assert {url: f"# {alert}" for url, alert in linked.items()} == {
        url: path.read_text().partition("\n")[0] for url, path in pages.items()
    }


def test_every_alert_says_how_urgent_it_is() -> None:
    assert {alert["labels"]["severity"] for alert in alerts()} == {"page", "ticket"}


def test_every_metric_of_a_rule_is_exported() -> None:
    named = {rule.get("alert", rule.get("record")): metrics_in(rule["expr"]) for rule in rules()}

    assert all(named.values())
    assert {name: metrics - exported() - recorded() for name, metrics in named.items()} == {
        name: set() for name in named
    }


def test_every_selector_that_a_page_names_finds_series() -> None:
    pages = [ROOT / "SECURITY.md", ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    selectors = [
        (page.name, selector)
        for page in pages
        for selector in re.findall(r"`([^`\n]*\w\{\w+[=!][^`\n]*)`", page.read_text(encoding="utf-8"))
    ]

    assert selectors
    assert {each for each in selectors if metrics_in(each[1]) - exported()} == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_metric_of_a_dashboard_is_exported(path: Path) -> None:
    named = set().union(*map(metrics_in, dashboard_expressions(path)))

    assert len(named) > 5
    assert named - exported() - recorded() == set()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_expression_of_a_dashboard_can_be_asked(path: Path, tmp_path: Path) -> None:
    asked = [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    filled = [each.replace("$__rate_interval", "5m") for each in asked]
    rules = [{"record": f"asked_{number}", "expr": each} for number, each in enumerate(filled)]
    (tmp_path / "asked.yml").write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))

    run("promtool", "check", "rules", str(tmp_path / "asked.yml"))


def test_every_metric_of_the_table_is_shown_on_a_dashboard() -> None:
    shown = {name for path in DASHBOARDS for text in dashboard_expressions(path) for name in metrics_in(text)}
    unsuffixed = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}

    assert {metric.name for metric in METRICS} - shown - unsuffixed == set()


def test_the_limits_of_the_objectives_are_buckets() -> None:
    limits = {float(text) for rule in rules() for text in re.findall(r'le="([\d.]+)"', rule["expr"])}

    assert limits == {10.0, 50.0, 100.0, 2000.0, 3000.0}
    assert {f'le="{limit}"' in RULES.read_text() for limit in limits} == {True}
    assert all(limits <= set(metric.buckets) for metric in METRICS if metric.name.endswith("_ms"))


@pytest.mark.parametrize(("severity", "receiver"), [("page", "pages"), ("ticket", "tickets")])
def test_alertmanager_takes_the_configuration_and_routes_by_severity(severity: str, receiver: str) -> None:
    run("amtool", "check-config", str(ROUTES))

    said = run("amtool", "config", "routes", "test", f"--config.file={ROUTES}", f"severity={severity}")

    assert said.strip() == receiver


def test_the_pager_reads_its_key_from_a_file_wherever_alertmanager_is_started() -> None:
    config = yaml.safe_load(ROUTES.read_text())
    settings = [each for receiver in config["receivers"] for each in receiver["pagerduty_configs"]]
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routed = {config["route"]["receiver"], *(route["receiver"] for route in config["route"]["routes"])}

    assert routed == receivers
    assert ["routing_key" in each for each in settings] == [False, False]
    # Alertmanager takes a relative one from its working directory, and says so at the first alert only
    assert [Path(each["routing_key_file"]).is_absolute() for each in settings] == [True, True]


def test_what_a_summary_names_is_what_its_alerts_are_grouped_by() -> None:
    # a receiver is given the annotations that all alerts of a group share: a summary that differs reaches nobody
    grouped_by = set(yaml.safe_load(ROUTES.read_text())["route"]["group_by"])
    named = {
        (alert["alert"], label)
        for alert in alerts()
        for label in re.findall(r"\$labels\.(\w+)", str(alert["annotations"]))
    }

    assert ("ServiceDown", "instance") in named
    assert {(alert, label) for alert, label in named if label not in grouped_by} == set()
