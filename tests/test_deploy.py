"""What deploy/ ships: against its own schemas where they are installed, and against the package."""

from __future__ import annotations

import configparser
import importlib
import inspect
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from prefect.utilities.templating import apply_values, find_placeholders

from gzscale.clusters.kubernetes import read_manifest
from gzscale.clusters.workers import ENVIRONMENT
from gzscale.config import load_config
from gzscale.errors import ClusterError
from gzscale.night.plan import check

HOME = Path(__file__).parents[1]
DEPLOY = HOME / "deploy"
KUBERNETES = "1.33"


def documents(path):
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def deployments():
    return yaml.safe_load((DEPLOY / "prefect.yaml").read_text())["deployments"]


@pytest.mark.parametrize("deployment", deployments(), ids=lambda item: item["name"])
def test_a_deployment_s_flow_takes_its_parameters(deployment):
    path, _, name = deployment["entrypoint"].partition(":")
    assert (HOME / path).is_file()
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert flow.name == deployment["name"]
    parameters = deployment.get("parameters", {})
    assert set(parameters) <= set(inspect.signature(flow.fn).parameters)
    if deployment.get("schedules"):  # What runs by itself is given all that it needs.
        flow.validate_parameters(parameters)
    # The form in the browser comes from the types.
    properties = flow.parameters.model_dump()["properties"]
    assert all("type" in item or "anyOf" in item for item in properties.values())


def test_what_runs_by_itself_can_begin_once_its_table_is_named(tmp_path):
    table = tmp_path / "galaxies.parquet"
    names = ("object_id", "run", "camcol", "field", "ra", "dec", "r90")
    pq.write_table(pa.table({name: [1] if name in names[:4] else [1.5] for name in names}), table)
    environment = {"GZSCALE_CATALOG__PATH": str(table), "GZSCALE_OUTPUT": str(tmp_path / "night")}
    for config in {item["parameters"]["config"] for item in deployments() if item.get("schedules")}:
        assert check(load_config(str(HOME / config), environment=environment))["catalog"]


def test_what_runs_by_itself_is_told_its_output_and_its_table():
    (settings,) = (item["data"] for item in PREFECT_MANIFESTS if item["kind"] == "ConfigMap")
    nights = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["nights"]["environment"]
    for environment in (settings, nights):
        assert environment["GZSCALE_CATALOG__PATH"].startswith("s3://")
        assert environment["GZSCALE_OUTPUT"].startswith("s3://")


def test_browsers_are_told_an_address_that_they_reach():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    (server,) = (item for item in PREFECT_MANIFESTS if named(item) == "Deployment-prefect-server")
    (container,) = server["spec"]["template"]["spec"]["containers"]
    variables = {item["name"]: item.get("value") for item in container["env"]}
    for environment in (services["prefect"]["environment"], variables):
        assert environment["PREFECT_UI_API_URL"] == "http://127.0.0.1:4200/api"


def test_what_writes_an_output_runs_alone():
    limits = {item["name"]: item.get("concurrency_limit") for item in deployments()}
    for name in ("nightly", "backfill"):
        assert limits[name]["limit"] == 1
        assert limits[name]["collision_strategy"] == "CANCEL_NEW"


def test_no_secret_is_written_down():
    secret = re.compile(r"(secret|password|token)\w*['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9+/]{6,}", re.IGNORECASE)
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            found = [line for line in path.read_text().splitlines() if secret.search(line)]
            assert [line for line in found if "secretRef" not in line and "secretKeyRef" not in line] == []


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda", "clusters/scheduler-tls.yaml"])
def test_it_says_what_workers_are_started_with(name):
    text = (DEPLOY / name).read_text()
    for variable, value in ENVIRONMENT.items():
        assert f" {variable}={value}" in text


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_are_small_pinned_and_not_root(name):
    text = (DEPLOY / name).read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2  # what builds is left behind
    assert all(re.search(r":\d+\.\d+\.\d+-slim", base) for base in bases)
    assert "--constraint constraints.txt --constraint deploy/constraints.txt" in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["1000"]
    ignored = (HOME / ".dockerignore").read_text().split()
    for source in re.findall(r"^COPY (?:--chown=\S+ )?([^-\n]+)$", text, re.MULTILINE):
        for item in source.split()[:-1]:
            assert (HOME / item).exists()
            assert f"!{item.split('/')[0]}" in ignored


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_have_what_deployments_and_surveys_need(name):
    extras = set(tomllib.loads((HOME / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    (given,) = re.findall(r'"\.\[([\w,]+)\]" prefect-kubernetes$', (DEPLOY / name).read_text(), re.MULTILINE)
    assert set(given.split(",")) == extras - {"test", "dev"} - ({"gpu"} if name == "Dockerfile" else set())


def test_what_only_images_have_is_pinned():
    ours, theirs = (
        dict(re.findall(r"^([\w.-]+)==(\S+)$", path.read_text(), re.MULTILINE))
        for path in (HOME / "constraints.txt", DEPLOY / "constraints.txt")
    )
    assert {"dask-cuda", "prefect-kubernetes", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton"} <= set(
        theirs
    )
    assert not {name.lower() for name in ours} & set(theirs)


def test_the_compose_file_s_services_know_each_other():
    tree = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = tree["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text())) == given - {
        "COMPOSE_PROJECT_NAME"
    }


def test_the_compose_file_by_compose_itself(tmp_path):
    tool = shutil.which("docker-compose")
    if tool is None:
        pytest.skip("docker-compose is not installed")
    environment = {
        "S3_USER": "user",
        "S3_PASSWORD": "x" * 12,
        "DATABASE_PASSWORD": "y" * 12,
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        [tool, "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_dask_manifest_parts_the_two_kinds_of_work():
    cluster, group = read_manifest(DEPLOY / "kubernetes" / "cluster.yaml")
    assert group is not None
    cut = cluster["spec"]["worker"]["spec"]["containers"][0]
    predict = group["spec"]["containers"][0]
    assert "CUT=1" in cut["args"]
    assert "PREDICT=1" in predict["args"]
    assert "nvidia.com/gpu" in predict["resources"]["limits"]
    assert "nvidia.com/gpu" not in str(cut)


@pytest.mark.parametrize(
    "text", ["", "kind: Pod\n", "kind: DaskCluster\n", "a: [\n", "kind: DaskCluster\nspec: {}\n"]
)
def test_another_manifest_is_refused(tmp_path, text):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match="not a manifest of a Dask cluster"):
        read_manifest(path)


def _schema_of(kind):
    folder = Path(pytest.importorskip("dask_kubernetes").__file__).parent / "operator" / "deployment" / "helm"
    crd = documents(folder / "dask-kubernetes-operator" / "crds" / f"{kind.lower()}.yaml")[0]
    return crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


@pytest.mark.parametrize(
    "document", documents(DEPLOY / "kubernetes" / "cluster.yaml"), ids=lambda item: item["kind"]
)
def test_dask_manifests_fit_the_operator_s_own_schemas(document):
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft7Validator(_schema_of(document["kind"])).validate(document)


@pytest.mark.parametrize(
    "document", documents(DEPLOY / "kubernetes" / "cluster.yaml"), ids=lambda item: item["kind"]
)
def test_pods_of_dask_manifests_fit_kubernetes_schemas(document):
    validate = pytest.importorskip("kubernetes_validate")
    parts = [document["spec"]["worker"]["spec"]]
    parts += [document["spec"]["scheduler"]["spec"]] if "scheduler" in document["spec"] else []
    for spec in parts:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        validate.validate(pod, KUBERNETES, strict=True)


PREFECT_MANIFESTS = [
    document
    for name in ("prefect-server.yaml", "prefect-worker.yaml")
    for document in documents(DEPLOY / "kubernetes" / name)
]


def named(document):
    return f"{document['kind']}-{document['metadata']['name']}"


@pytest.mark.parametrize("document", PREFECT_MANIFESTS, ids=named)
def test_manifests_fit_kubernetes_schemas(document):
    pytest.importorskip("kubernetes_validate").validate(document, KUBERNETES, strict=True)


def test_what_manifests_name_is_made_by_them_or_told_in_the_readme():
    made = {named(document) for document in PREFECT_MANIFESTS}
    readme = (DEPLOY / "README.md").read_text()
    pods = [
        document["spec"]["template"]["spec"]
        for document in [*PREFECT_MANIFESTS, job({})]
        if "template" in document.get("spec", {})
    ]
    assert len(pods) == 4
    for pod in pods:
        account = pod.get("serviceAccountName")
        assert account is None or f"ServiceAccount-{account}" in made
        text = json.dumps(pod)
        for name in re.findall(r'"configMapRef": {"name": "([\w-]+)"', text):
            assert f"ConfigMap-{name}" in made
        for name in re.findall(r'"secret(?:Key)?Ref": {"name": "([\w-]+)"', text):
            assert f"create secret generic {name} " in readme
    (settings,) = (item["data"] for item in PREFECT_MANIFESTS if item["kind"] == "ConfigMap")
    address = re.fullmatch(r"http://([\w-]+):4200/api", settings["PREFECT_API_URL"])
    assert address is not None
    assert f"Service-{address[1]}" in made
    assert settings["GZSCALE_OUTPUT"].startswith("s3://")
    assert (DEPLOY / "clusters" / f"{settings['GZSCALE_CLUSTER']}.yaml").is_file()


def job(given):
    """The Job of a run, as Prefect's Kubernetes worker fills it in."""
    template = json.loads((DEPLOY / "kubernetes" / "job-template.json").read_text())
    variables = template["variables"]["properties"]
    values = {name: item["default"] for name, item in variables.items() if "default" in item} | given
    configuration = template["job_configuration"]
    assert {item.name for item in find_placeholders(configuration)} == set(variables)
    return apply_values(configuration, values)["job_manifest"]


def test_the_job_of_a_run_fits_kubernetes_schema():
    validate = pytest.importorskip("kubernetes_validate")
    command = ["prefect", "flow-run", "execute"]
    variables = [{"name": "PREFECT__FLOW_RUN_ID", "value": "x"}]
    made = job({"command": command, "env": variables, "labels": {"prefect.io/flow-run-id": "x"}})
    validate.validate(made, KUBERNETES, strict=True)


def test_a_run_s_job_says_which_pod_it_is():
    (container,) = job({})["spec"]["template"]["spec"]["containers"]
    fields = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in container["env"]}
    names = ("name", "uid", "namespace")
    assert fields == {f"GZSCALE_POD_{name.upper()}": f"metadata.{name}" for name in names}


def test_a_run_s_job_takes_what_deployments_set():
    template = json.loads((DEPLOY / "kubernetes" / "job-template.json").read_text())
    for deployment in deployments():
        assert set(deployment["work_pool"]["job_variables"]) <= set(template["variables"]["properties"])


def test_the_service_of_a_user_asks_for_nothing_that_only_the_system_has():
    text = (DEPLOY / "slurm" / "prefect-worker.service").read_text()
    service = configparser.ConfigParser(interpolation=None)
    service.optionxform = str
    service.read_string(text)
    assert not {"After", "Wants", "Requires"} & set(service["Unit"])
    assert service["Install"]["WantedBy"] == "default.target"
    # With any other, a night's processes get no SIGTERM, or no end.
    assert service["Service"]["KillMode"] == "control-group"
    assert "enable-linger" in text


def test_shell_scripts_parse_and_name_shipped_presets():
    path = DEPLOY / "slurm" / "night.sh"
    assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0
    preset = re.search(r"\$\{2:-([\w-]+)\}", path.read_text())
    assert preset is not None
    assert (DEPLOY / "clusters" / f"{preset[1]}.yaml").is_file()
