# SPDX-License-Identifier: Apache-2.0
"""Alert rules and dashboard against Debian's real Prometheus, which scrapes a real server."""
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
import yaml

from conftest import CHART, ROOT
from python.conftest import Server, free_port

NAME = re.compile(r"\b(?:vllm:|millrace_)[a-z0-9_]+")
SUFFIXES = re.compile(r"_(bucket|sum|count)$")


def written_names():
    text = (ROOT / "server/metrics/metrics.cc").read_text()
    return set(re.findall(r'"((?:vllm:|millrace_)[a-z0-9_]+)"', text))


def names_in(expression):
    return {SUFFIXES.sub("", name) for name in NAME.findall(expression)}


def dashboard_expressions():
    board = json.loads((CHART / "dashboards/millrace.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def alert_expressions():
    groups = yaml.safe_load((CHART / "rules/alerts.yaml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def test_every_metric_asked_for_is_offered():
    for expression in dashboard_expressions() + alert_expressions():
        assert names_in(expression) and names_in(expression) <= written_names(), expression


def test_alert_rules_do_what_their_tests_say():
    if shutil.which("promtool") is None:
        pytest.skip("no promtool")
    subprocess.run(["promtool", "check", "rules", CHART / "rules/alerts.yaml"], check=True)
    subprocess.run(["promtool", "test", "rules", CHART / "rules/alerts_test.yaml"], check=True)
    tested = (CHART / "rules/alerts_test.yaml").read_text()
    for alert in re.findall(r"- alert: (\S+)", (CHART / "rules/alerts.yaml").read_text()):
        assert f"alertname: {alert}\n" in tested


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """ask(path, **query) -> data of a Prometheus that scrapes a server which has answered a few requests."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    server = Server(folder / "server.log")
    body = json.dumps({"prompt": "Hello", "max_tokens": 8}).encode()
    for _ in range(3):
        urllib.request.urlopen(urllib.request.Request(server.base + "/v1/completions", body, {"Content-Type": "application/json"}), timeout=60).read()
    config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(CHART / "rules/alerts.yaml")],
              "scrape_configs": [{"job_name": "millrace", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    with open(folder / "prometheus.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                                    f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)

    def ask(path, **query):
        url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        return json.load(urllib.request.urlopen(url, timeout=10))["data"]

    def has_scraped():
        try:
            return bool(ask("query", query="rate(vllm:generation_tokens_total[1m])")["result"])
        except OSError:
            return False

    for _ in range(300):
        if has_scraped():
            break
        time.sleep(0.1)
    yield ask
    process.terminate()
    process.wait(30)
    server.stop()


def test_prometheus_scrapes_every_metric(prometheus):
    assert prometheus("query", query="up")["result"][0]["value"][1] == "1"
    stored = {SUFFIXES.sub("", name) for name in prometheus("label/__name__/values")}
    # What has not happened yet has no series.
    rare = {"vllm:admission_rejections_total", "millrace_tenant_requests_waiting", "millrace_http_slow_readers_total",
            "millrace_tenant_rejections_total", "millrace_agent_runs_total", "millrace_tool_calls_total", "millrace_tool_call_seconds"}
    assert written_names() - rare <= stored


def test_every_expression_is_understood(prometheus):
    for expression in dashboard_expressions():
        plain = expression.replace('{job=~"$job",instance=~"$instance"}', '{job=~".*"}').replace("$__rate_interval", "1m")
        prometheus("query", query=plain)


def test_no_alert_fires_on_a_healthy_server(prometheus):
    rules = prometheus("rules")["groups"][0]["rules"]
    assert len(rules) == len(alert_expressions())
    assert all(rule["health"] in ("ok", "unknown") and rule["state"] != "firing" for rule in rules), rules
