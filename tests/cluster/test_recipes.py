"""The cluster's recipes against their schemas, and against the Dockerfile, the CLI and Ray's own options."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from ray.scripts.scripts import start as ray_start

from reproduce.cli.app import main
from reproduce.plan.space_file import space_names
from reproduce.run.telemetry import STATES, SWEEP_GAUGE, TAGS, TRIAL_GAUGES

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "reproduce" / "cluster"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PAGES = "\n".join(
    path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
)
RAY_OPTIONS = {option for parameter in ray_start.params for option in parameter.opts}
DASHBOARD = CLUSTER / "monitoring" / "grafana" / "dashboards" / "lfreeze.json"


class _Loader(yaml.SafeLoader):
    """With compose's own tag for taking a value away."""


_Loader.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))


def load(name: str) -> list[Any]:
    return list(yaml.load_all((CLUSTER / name).read_text(), _Loader))


def compose() -> dict[str, Any]:
    return load("compose.yaml")[0]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cpu.yaml"])
def test_compose_files_are_valid(name: str) -> None:
    jsonschema.validate(load(name)[0], get_builtin_schema("vendor.compose-spec"))


def test_the_launchers_file_is_valid() -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(load("ray-cluster.yaml")[0], schema)


def test_the_jobs_parts_are_valid_kubernetes() -> None:
    claim, job = load("rayjob.yaml")
    kubernetes_validate.validate(claim, "1.31", strict=True)
    groups = [
        job["spec"]["rayClusterSpec"]["headGroupSpec"],
        *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ]
    for group in groups:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": group["template"]["spec"],
        }
        kubernetes_validate.validate(pod, "1.31", strict=True)


def test_the_pod_that_hands_out_the_results_mounts_the_jobs_claim() -> None:
    claim, job = load("rayjob.yaml")
    (pod,) = load("results.yaml")
    kubernetes_validate.validate(pod, "1.31", strict=True)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert pod["spec"]["securityContext"] == head["securityContext"]
    (container,), (writer,) = pod["spec"]["containers"], head["containers"]
    assert container["securityContext"] == writer["securityContext"]
    assert container["image"] == writer["image"]
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
    assert container["volumeMounts"] == [
        {"name": volume["name"], "mountPath": "/artifacts", "readOnly": True}
    ]
    assert f"kubectl cp {pod['metadata']['name']}:/artifacts/paper " in PAGES
    for name in ("results.yaml", "rayjob.yaml"):
        assert f"-f reproduce/cluster/{name}" in PAGES


def test_the_jobs_own_fields_are_kuberays() -> None:
    """Its fields by KubeRay's API reference (1.6), whose schema no package carries."""
    job = load("rayjob.yaml")[1]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= {
        "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submissionMode",
        "rayClusterSpec", "runtimeEnvYAML", "activeDeadlineSeconds", "entrypointNumCpus",
    }  # fmt: skip
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["authOptions"] == {"mode": "token", "secretName": "lfreeze-ray"}
    assert set(cluster["headGroupSpec"]) <= {"serviceType", "rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= {
            "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template",
        }  # fmt: skip
    assert f"ray=={cluster['rayVersion']} " in (ROOT / "requirements" / "base.txt").read_text()


def ray_starts() -> list[list[str]]:
    """Every `ray start` of the recipes, in words."""
    found = []
    for service in ("head", "worker"):
        values = compose()["services"][service]
        found.append([*values["entrypoint"][2:], *values["command"]])
    launcher = load("ray-cluster.yaml")[0]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        found += [shlex.split(line) for line in launcher[key] if line.startswith("ray start")]
    cluster = load("rayjob.yaml")[1]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        found.append(
            ["ray", "start", *(f"--{name}={value}" for name, value in group["rayStartParams"].items())]
        )
    return found


def test_every_option_of_ray_start_exists() -> None:
    assert len(ray_starts()) == 6
    for words in ray_starts():
        assert words[:2] == ["ray", "start"]
        for word in words[2:]:
            assert word.split("=")[0] in RAY_OPTIONS, word


def commands() -> list[str]:
    """Every `reproduce` command in the recipes and the documentation."""
    texts = [path.read_text() for path in CLUSTER.glob("*.yaml")] + [PAGES]
    return [
        match.strip('"`')
        for text in texts
        for match in re.findall(r"reproduce (?:run|fetch|doctor)[^\n`|#\"']*", text)
    ]


def test_every_command_of_the_recipes_exists() -> None:
    seen = [words for words in map(shlex.split, commands()) if "--address" in words]
    assert len(seen) >= 4
    for words in map(shlex.split, commands()):
        command = main.commands[words[1]]
        options = {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words[2:] if word.startswith("--")} <= options, words
        if len(words) > 2 and not words[2].startswith("-") and words[2].isalpha():
            assert words[2] in space_names() or words[2] == "SPACE", words


def test_the_job_fills_the_empty_caches_of_its_pods_first() -> None:
    shell, option, script = shlex.split(load("rayjob.yaml")[1]["spec"]["entrypoint"])
    assert (shell, option) == ("sh", "-c")
    fetch, run = script.split(" && ")
    assert fetch.replace(" fetch ", " run ") == run
    assert run.startswith("reproduce run paper --address auto ")


def test_every_recipe_runs_the_image_that_the_documentation_builds() -> None:
    assert "docker build -t lfreeze " in PAGES
    services = compose()["services"]
    assert {services[name]["image"] for name in ("head", "worker")} == {"${LFREEZE_IMAGE:-lfreeze}"}
    assert load("ray-cluster.yaml")[0]["docker"]["image"] == "lfreeze"
    cluster = load("rayjob.yaml")[1]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == "lfreeze"
    for argument in re.findall(r"--build-arg (\w+)=", PAGES + DOCKERFILE):
        assert f"ARG {argument}" in DOCKERFILE


def test_users_and_folders_are_the_images() -> None:
    (user,) = re.findall(r"^USER (\d+):\1$", DOCKERFILE, re.MULTILINE)
    assert compose()["services"]["head"]["user"] == f"${{LFREEZE_USER:-{user}:{user}}}"
    writable = set(
        re.findall(r"/(?:artifacts|cache)\b", re.findall(r"^RUN mkdir.*$", DOCKERFILE, re.MULTILINE)[0])
    )
    assert writable == {"/artifacts", "/cache"}
    assert f'version = "{re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE)[0]}"' in PYPROJECT
    cluster = load("rayjob.yaml")[1]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsUser"] == int(user)
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts <= writable | {"/tmp", "/dev/shm"}


def test_nothing_listens_beyond_loopback_and_every_node_wants_the_token() -> None:
    services = compose()["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
    for name in ("head", "worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert services[name]["environment"]["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    assert "--env=RAY_AUTH_MODE=token" in load("ray-cluster.yaml")[0]["docker"]["run_options"]
    for published in re.findall(r"(?:-p|--publish) (\S*\d:\S+)", PAGES):
        assert published.startswith("127.0.0.1:")


def test_the_dashboards_queries_name_our_gauges_and_tags() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for query in queries for name in re.findall(r"ray_(lfreeze_\w+)", query)}
    assert named == {*TRIAL_GAUGES, SWEEP_GAUGE}
    for query in queries:
        for tags in re.findall(r"sum by \(([^)]*)\) \(ray_lfreeze_trial", query):
            assert tuple(tags.split(", ")) == TAGS
        for state in re.findall(r'state="(\w+)"', query):
            assert state in STATES
