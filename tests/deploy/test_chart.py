# SPDX-License-Identifier: Apache-2.0
"""The Helm chart: valid for Kubernetes' schemas, safe by our own rules, and a config that the real binary accepts."""
import pathlib
import shutil
import subprocess

import pytest
import yaml

from conftest import BINARY, CHART, ROOT

jsonschema = pytest.importorskip("jsonschema", reason="PyPI was not reachable")

EVERYTHING = {
    "model": {"source": "org/name", "servedNames": ["a", "b"], "hubTokenSecret": {"name": "hub"}, "hubEndpoint": "https://hub.example"},
    "config": {"quantization": "int8", "max-num-seqs": 64, "kv-cache-memory-bytes": "4GB", "enable-prefix-caching": True},
    "apiKeys": {"existingSecret": "keys"},
    "tls": {"existingSecret": "tls"},
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}], "extraEgress": [{"ports": [{"port": 3128}]}]},
    "metrics": {
        "serviceMonitor": {"isEnabled": True, "labels": {"release": "prom"}, "bearerTokenSecret": {"name": "scrape"}},
        "prometheusRule": {"isEnabled": True, "labels": {"release": "prom"}}, "dashboard": {"isEnabled": True}},
    "inferencePool": {"isEnabled": True, "route": {"isEnabled": True, "parentGateway": "gw", "hostnames": ["llm.example"]}},
    "autoscaling": {"isEnabled": True},
    "podLabels": {"team": "a"}, "podAnnotations": {"note": "x"}, "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}], "priorityClassName": "high", "extraEnv": [{"name": "A", "value": "b"}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "affinity": {"nodeAffinity": {}},
}
CASES = {
    "defaults": {},
    "everything": EVERYTHING,
    "shared cache": {"responseCache": {"redisUrlSecret": {"name": "redis"}, "ttlSeconds": 60}},
    "keda": {"keda": {"isEnabled": True}},
    "no grpc": {"service": {"grpcPort": 0}, "drain": {"preStopSeconds": 0}, "podDisruptionBudget": {"isEnabled": False}},
    "cache claim": {"model": {"source": "org/name", "cache": {"existingClaim": "models"}}, "serviceAccount": {"name": "mine"}},
}
VERSIONS = ["1.25", "1.31", "1.34"]
# Kinds of other projects' CustomResourceDefinitions: their schemas are not Kubernetes'.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "InferencePool", "HTTPRoute"}


def by_kind(manifests, kind):
    return [m for m in manifests if m["kind"] == kind]


def values_of(case):
    def merge(base, over):
        return {**base, **{k: merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in over.items()}}
    return merge(yaml.safe_load((CHART / "values.yaml").read_text()), CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_values_fit_their_schema(case):
    jsonschema.validate(values_of(case), yaml.safe_load((CHART / "values.schema.json").read_text()))


@pytest.mark.parametrize("wrong", [
    {"replicas": 2}, {"replicaCount": -1}, {"image": {"tag": "x"}}, {"config": {"port": 80}}, {"config": {"api_key": "secret"}},
    {"config": {"Max": 1}}, {"config": {"quantization": {"a": 1}}}, {"service": {"type": "Host"}}, {"tls": {"secret": "x"}},
    {"image": {"repository": "r", "digest": "sha256:1"}}, {"drain": {"shutdownTimeoutSeconds": 0}}, {"autoscaling": {"enabled": True}}])
def test_wrong_values_are_refused(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, yaml.safe_load((CHART / "values.schema.json").read_text()))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_manifests_fit_kubernetes_schemas(render, case, version):
    validate = pytest.importorskip("kubernetes_validate", reason="PyPI was not reachable")
    manifests = render(CASES[case])
    assert {"Deployment", "Service", "ConfigMap", "NetworkPolicy"} <= {m["kind"] for m in manifests}
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_pods_are_confined(render, case):
    for deployment in by_kind(render(CASES[case]), "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"] and "cpu" in container["resources"]["requests"]
            assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize("case", CASES)
def test_names_lead_to_each_other(render, case):
    manifests = render(CASES[case])
    [deployment] = by_kind(manifests, "Deployment")
    [service] = by_kind(manifests, "Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    ports = {p["name"] for p in container["ports"]}
    selectors = [deployment["spec"]["selector"]["matchLabels"], service["spec"]["selector"]]
    selectors += [m["spec"]["selector"]["matchLabels"] for m in manifests if m["kind"] in ("PodDisruptionBudget", "InferencePool")]
    selectors += [m["spec"]["podSelector"]["matchLabels"] for m in by_kind(manifests, "NetworkPolicy")]
    for selector in selectors:
        assert selector and selector.items() <= labels.items()
    assert {p["targetPort"] for p in service["spec"]["ports"]} == ports
    for monitor in by_kind(manifests, "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert monitor["spec"]["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}
    for scaler in by_kind(manifests, "HorizontalPodAutoscaler") + by_kind(manifests, "ScaledObject"):
        assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"]
    for route in by_kind(manifests, "HTTPRoute"):
        assert route["spec"]["rules"][0]["backendRefs"][0]["name"] == by_kind(manifests, "InferencePool")[0]["metadata"]["name"]


@pytest.mark.parametrize("case", CASES)
def test_probes_and_drain_fit(render, case):
    [deployment] = by_kind(render(CASES[case]), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    values = values_of(case)
    assert container["readinessProbe"]["httpGet"]["scheme"] == ("HTTPS" if values["tls"]["existingSecret"] else "HTTP")
    drain = values["drain"]
    assert pod["terminationGracePeriodSeconds"] > drain["preStopSeconds"] + drain["shutdownTimeoutSeconds"]
    if drain["preStopSeconds"]:
        assert container["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/sleep", str(drain["preStopSeconds"])]


@pytest.mark.parametrize("case", CASES)
def test_the_binary_accepts_the_config(render, case, tmp_path):
    """serve.yaml with its paths moved here, through `millrace serve --check-config`."""
    if not pathlib.Path(BINARY).exists():
        pytest.skip("no binary")
    [config_map] = by_kind(render(CASES[case]), "ConfigMap")[:1]
    [deployment] = by_kind(render(CASES[case]), "Deployment")
    text = config_map["data"]["serve.yaml"].replace("/etc/millrace/", f"{tmp_path}/")
    text = text.replace("/usr/share/millrace/models", str(ROOT / "models")).replace("org/name", str(ROOT / "models/millrace-tiny"))
    for folder in ("keys", "tls", "serve", "redis"):
        (tmp_path / folder).mkdir()
    (tmp_path / "redis/url").write_text("redis://:secret@cache.example:6379/1\n")
    (tmp_path / "keys/keys.yaml").write_text("keys:\n  - {key: a-long-random-text, tenant: search}\n")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-keyout", tmp_path / "tls/tls.key", "-out", tmp_path / "tls/tls.crt"], check=True, capture_output=True)
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    path = tmp_path / "serve/serve.yaml"
    path.write_text(text)
    done = subprocess.run([BINARY, *[a.replace("/etc/millrace", str(tmp_path)) for a in args], "--check-config"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contradictions_are_refused(render):
    with pytest.raises(ValueError, match="cannot both be enabled"):
        render({"autoscaling": {"isEnabled": True}, "keda": {"isEnabled": True}})
    with pytest.raises(ValueError, match="needs parentGateway"):
        render({"inferencePool": {"isEnabled": True, "route": {"isEnabled": True}}})


def test_a_changed_config_restarts_pods(render):
    def checksum(values):
        [deployment] = by_kind(render(values), "Deployment")
        return deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    assert checksum({}) != checksum({"config": {"max-num-seqs": 8}})
    assert checksum({}) == checksum({"replicaCount": 3})


def test_a_local_model_may_go_nowhere(render):
    [policy] = by_kind(render({}), "NetworkPolicy")
    assert policy["spec"]["egress"] == [] and "Egress" in policy["spec"]["policyTypes"]
    [policy] = by_kind(render({"model": {"source": "org/name"}}), "NetworkPolicy")
    assert {p["port"] for p in policy["spec"]["egress"][0]["ports"]} == {53, 443}


def test_yaml_is_tidy():
    if shutil.which("yamllint") is None:
        pytest.skip("no yamllint")
    rules = "{extends: default, rules: {line-length: {max: 200}, document-start: disable, braces: {max-spaces-inside: 0}}}"
    paths = [CHART / "values.yaml", CHART / "Chart.yaml", *(CHART / "rules").iterdir()]
    done = subprocess.run(["yamllint", "-d", rules, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
