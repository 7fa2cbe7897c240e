"""The chart, without a cluster: what it makes is valid, locked down, and means what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import promql_parser
import pytest
import yaml
from jsonschema import ValidationError  # type: ignore[import-untyped]  # no stubs

from outbox.config import load_config
from outbox.settings import Config, specs
from outbox_api.metrics import HttpMetrics
from outbox_dispatcher.health import figures
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings
from tests.deploy.chart_files import BY_THE_CHART, files, secrets
from tests.deploy.charts import CHART, FULL, NEEDED, Manifest, merged, pods, rendered
from tests.deploy.custom_resources import validate
from tests.postgres import Database

EXAMPLE = yaml.safe_load((CHART / "examples/cloudnative-pg-values.yaml").read_text())
MATRIX = {
    "least": (NEEDED, False),
    "all": (FULL, False),
    "all, upgraded": (FULL, True),
    "example": (EXAMPLE, False),
    "open": (merged(NEEDED, {"networkPolicy": {"enabled": False},
                             "migrations": {"enabled": False}}), False),
}  # fmt: skip
VERSIONS = ["1.37", "1.36", "1.35"]
CUSTOM = {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PodMonitor",
          "PrometheusRule", "HTTPRoute", "Cluster"}  # fmt: skip


@pytest.fixture(params=list(MATRIX.values()), ids=list(MATRIX))
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    values, upgrade = request.param
    return rendered(values, upgrade=upgrade)


def test_helm_finds_nothing_to_complain_of() -> None:
    for values, _ in MATRIX.values():
        report = helm.lint(CHART, values, strict=True)
        said = [m for m in report["messages"] if m["severity"] >= 2]
        assert (said, report["errors"]) == ([], [])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_what_kubernetes_takes(manifests: list[Manifest], version: str) -> None:
    for each in manifests:
        validate(each, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_example_s_database_is_what_kubernetes_takes(version: str) -> None:
    made = _example()
    assert [each["kind"] for each in made] == ["Cluster", "Secret"]
    for each in made:
        validate(each, version)


@pytest.mark.parametrize("kind", sorted(CUSTOM))
def test_a_misspelt_field_of_a_custom_resource_is_found(kind: str) -> None:
    manifest = next(each for each in [*rendered(FULL), *_example()] if each["kind"] == kind)
    places = list(_objects(manifest["spec"], "$.spec"))
    for place, found in places:
        found["missspelt"] = 1
        with pytest.raises(ValidationError) as caught:
            validate(manifest, VERSIONS[0])
        assert caught.value.json_path.startswith(place)
        del found["missspelt"]
    validate(manifest, VERSIONS[0])
    manifest["metadata"]["missspelt"] = "x"
    with pytest.raises(ValidationError, match="missspelt"):
        validate(manifest, VERSIONS[0])


def _example() -> list[Manifest]:
    return list(yaml.safe_load_all((CHART / "examples/cloudnative-pg.yaml").read_text()))


def _objects(value: object, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object whose fields the schema names, with its place."""
    if isinstance(value, dict) and not place.endswith((".matchLabels", ".labels", ".annotations")):
        yield place, value
        for key, inner in value.items():
            yield from _objects(inner, f"{place}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _objects(inner, f"{place}[{number}]")


def test_names_are_given_once(manifests: list[Manifest]) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(names) == len(set(names))


def test_pods_are_locked_down(manifests: list[Manifest]) -> None:
    for name, _, spec in pods(manifests):
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["allowPrivilegeEscalation"] is False
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert re.search(r":\d+\.\d+\.\d+$|@sha256:", container["image"])


def test_no_secret_is_in_a_config_map_or_in_a_variable(manifests: list[Manifest]) -> None:
    secret = {f"OUTBOX_{name}" for name, spec in specs().items() if spec.may_come_from_a_file}
    secret.discard("OUTBOX_PUSH_URL")
    for each in manifests:
        if each["kind"] == "ConfigMap":
            assert not secret & set(each["data"])
    for _, _, spec in pods(manifests):
        for container in spec["containers"]:
            assert not secret & {variable["name"] for variable in container["env"]}


def test_dispatchers_do_not_get_the_admin_key() -> None:
    for name, _, spec in pods(rendered(FULL)):
        variables = {v["name"] for c in spec["containers"] for v in c["env"]}
        assert ("OUTBOX_ADMIN_KEY_FILE" in variables) == name.endswith(("-api", "-test")), name


def test_a_network_policy_stands_before_every_pod() -> None:
    made = rendered(FULL)
    chosen = [each["spec"]["podSelector"]["matchLabels"] for each in made
              if each["kind"] == "NetworkPolicy"]  # fmt: skip
    for name, metadata, _ in pods(made):
        assert any(labels.items() <= metadata["labels"].items() for labels in chosen), name


def test_settings_reach_the_code_as_they_are_meant() -> None:
    data = next(e["data"] for e in rendered(FULL) if e["kind"] == "ConfigMap"
                and "OUTBOX_HOST" in e["data"])  # fmt: skip
    config = load_config(data)
    assert config.mail_from == "Cinema <no-reply@example.com>"
    assert config.concurrency("bulk") == 40
    assert config.retention_s == Config().retention_s
    assert (config.host, config.port, config.metrics_port) == ("0.0.0.0", 8080, 9090)


def test_every_setting_is_a_value_with_the_code_s_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert {n.upper() for n in values["settings"]} == set(specs()) - BY_THE_CHART - set(secrets())
    code = Config(log_format="json")
    for name, value in values["settings"].items():
        default = getattr(code, name)
        expected = None if default in (None, ()) else default
        assert (str(value) if isinstance(expected, str) else value) == expected, name


def test_what_follows_from_the_code_is_up_to_date() -> None:
    for path, text in files():
        assert path.read_text() == text, f"run `make chart`: {path.name} is older than the code"


def test_every_value_is_documented_and_is_what_the_schema_knows() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    schema = json.loads((CHART / "values.schema.json").read_text())
    root = yaml.compose("\n".join(lines))
    assert isinstance(root, yaml.MappingNode)
    found = list(_values(root, schema, ""))
    assert len(found) > 100
    bare = [place for place, line, _ in found
            if line is not None and not re.match(r" *# \S", lines[line - 1])]  # fmt: skip
    assert bare == [], "no comment stands above these"
    assert [place for place, _, known in found if not known] == [], "the schema lacks these"


def test_every_value_that_the_schema_knows_is_in_the_file() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert [place for place in _unset(values, schema, "") if place != ".global"] == []
    pool = schema["properties"]["pools"]["additionalProperties"]["properties"]
    assert {*pool} == {"queues", *values["poolDefaults"]}


def _unset(value: object, schema: dict[str, Any], place: str) -> Iterator[str]:
    """Yield the places that the schema names and `value` does not have."""
    if isinstance(value, dict):
        for name, of in schema.get("properties", {}).items():
            if name not in value:
                yield f"{place}.{name}"
            yield from _unset(value.get(name), of, f"{place}.{name}")


def _values(
    node: yaml.MappingNode, schema: dict[str, Any], place: str
) -> Iterator[tuple[str, int | None, bool]]:
    """Yield each value's place, the line of its key where it has its own, and if it's known."""
    named = schema.get("properties")
    for key, value in node.value:
        of = (named or {}).get(key.value, schema.get("additionalProperties"))
        known = isinstance(of, dict) or (named is None and "additionalProperties" not in schema)
        yield f"{place}.{key.value}", None if node.flow_style else key.start_mark.line, known
        if isinstance(value, yaml.MappingNode):
            yield from _values(value, of if isinstance(of, dict) else {}, f"{place}.{key.value}")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"settings": {"drain_s": 60}}, "terminationGracePeriodSeconds"),
        ({"api": {"leaveSeconds": 30}}, "terminationGracePeriodSeconds"),
        ({"api": {"replicas": 3, "autoscaling": {"enabled": True}}}, "replicas"),
        ({"pools": {"x": {"queues": ["a"], "replicas": 2, "autoscaling": {"enabled": True}}},
          "keda": {"connectionSecret": {"name": "k"}}}, "replicas and autoscaling"),
        ({"pools": {"x": {"queues": ["a"], "autoscaling": {"enabled": True}}}},
         "connectionSecret"),
        ({"pools": {"x": {"queues": []}}}, "queues"),
        ({"pools": {"x": {}}}, "queues"),
        ({"pools": {"x": {"queues": ["*", "a"]}}}, "queues"),
        ({"pools": {"x": {"queues": ["a'; drop"]}}}, "queues"),
        ({"pools": {"api": {"queues": ["a"]}}}, "api"),
        ({"poolDefaults": {"autoscaling": {"minReplicas": 0}}}, "minReplicas"),
        ({"image": {"tag": "latest"}}, "tag"),
        ({"secrets": {"database_url": {"name": ""}}}, "database_url"),
        ({"settings": {"lease_s": 5}}, "lease_s"),
        ({"settings": {"leese_s": 60}}, "leese_s"),
        ({"migrations": {"adminUrl": "postgresql://me:secret@db/x"}}, "adminUrl"),
        ({"ingress": {"enabled": True}}, "host"),
        ({"nonsense": 1}, "nonsense"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(helm.HelmError, match=said):
        rendered(merged(NEEDED, wrong))


def test_nothing_waits_for_what_it_blocks() -> None:
    installed = rendered(FULL)
    job = next(each for each in installed if each["kind"] == "Job")
    assert "annotations" not in job["metadata"]
    jobs = [each for each in rendered(FULL, upgrade=True) if each["kind"] == "Job"]
    asked = {
        job["metadata"]["annotations"]["helm.sh/hook"]: container["args"]
        for job in jobs
        for container in job["spec"]["template"]["spec"]["containers"]
    }
    assert set(asked) == {"pre-upgrade", "post-upgrade"}
    assert "--phase=pre" in asked["pre-upgrade"]
    assert {"--phase=post", "--or-later"} <= set(asked["post-upgrade"])


def test_autoscalers_ask_what_the_schema_answers(database: Database) -> None:
    queries = [t["metadata"]["query"] for each in rendered(FULL) if each["kind"] == "ScaledObject"
               for t in each["spec"]["triggers"]]  # fmt: skip
    assert queries
    with database.admin_connect() as admin:
        admin.execute("set role outbox_scaler")
        for query in queries:
            assert admin.execute(query).fetchall() == [(0.0,)]


def test_alerts_and_dashboards_ask_for_metrics_that_exist() -> None:
    made = rendered(FULL)
    texts = [rule["expr"] for each in made if each["kind"] == "PrometheusRule"
             for group in each["spec"]["groups"] for rule in group["rules"]]  # fmt: skip
    mapped = next(each["data"] for each in made if each["metadata"]["name"].endswith("dashboards"))
    boards = [json.loads(text) for text in mapped.values()]
    assert {board["uid"] for board in boards} == {"outbox", "outbox-dispatchers"}
    texts += [t["expr"] for board in boards for panel in board["panels"] for t in panel["targets"]]
    known = _metrics()
    for text in texts:
        promql_parser.parse(text)
        for name in re.findall(r"\boutbox_[a-z_]+", text):
            assert re.sub(r"_(bucket|total|count|sum)$", "", name) in known, name


def _metrics() -> set[str]:
    """Return the names that the code exports, without the endings of their kinds."""
    import inspect

    import outbox_api.metrics as exported

    written = set(re.findall(r'"(outbox_[a-z_]+)"', inspect.getsource(exported)))
    idle = Dispatcher(DispatcherSettings(database_url=""), channels={}, queues={})
    of_dispatchers = {one.name.removesuffix("_total") for one in figures(idle)}
    return written | of_dispatchers | {f.name for f in HttpMetrics().registry.collect()}
