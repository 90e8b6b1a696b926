"""What docker/ asks for exists: settings, commands, files. And containers have only the rights they need."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any

import click
import pytest

from producer.cli import cli
from tests.docker_files import (
    DOCKER,
    DOCKERFILE,
    MANIFESTS,
    OWN_IMAGES,
    ROOT,
    documents,
    last_in_dockerfile,
    manifests,
    pods,
    services,
    variables,
)
from worker.contract.settings import Settings, load_settings
from worker.machine.supervisor import _KILL_AFTER_S, Restarts

# Without what `make up` and Python leave there.
FILES = sorted(
    path
    for path in DOCKER.rglob("*")
    if path.is_file() and path.suffix != ".pyc" and path.name not in (".env", "deconvoy.env", "users.acl")
)
SETTINGS = {f"DECONVOY_{name.upper()}" for name in Settings.model_fields}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SERVICES = services("compose.yaml")
END_S = Settings().shutdown_s + _KILL_AFTER_S
HEALTH_COMMAND = ["python", "-I", "/opt/deconvoy/healthcheck.py"]

COMMANDS = {
    **{f"image {stage}": last_in_dockerfile("CMD", stage) for stage in ("producer", "worker")},
    **{
        f"{name} {service}": each["command"]
        for name in ("compose.yaml", "compose.gpu.yaml")
        for service, each in services(name).items()
        if service in ("worker", "beat", "producer")
    },
    **{
        f"{name} {container['name']}": container["args"]
        for name, pod in pods().items()
        for container in pod["containers"]
    },
}


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DOCKER)))
def test_every_setting_that_is_named_exists(path: Path) -> None:
    assert set(re.findall(r"DECONVOY_[A-Z0-9_]+", path.read_text(encoding="utf-8"))) <= SETTINGS


def test_every_setting_is_documented_with_its_default_and_no_other() -> None:
    lines = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `D")
    ]
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert documented == {
        f"DECONVOY_{name.upper()}": "unset" if field.default in (None, ()) else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert all(row[2] for row in rows)


@pytest.mark.parametrize("name", ["deconvoy.env.example", "kubernetes/base/settings.env"])
def test_the_settings_of_the_examples_can_be_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = variables(DOCKER / ".env.example")
    for variable, value in variables(DOCKER / name).items():
        monkeypatch.setenv(variable, Template(value).substitute(outer))
    assert load_settings().log_format == "json"


@pytest.mark.parametrize("where", COMMANDS)
def test_every_command_is_one_of_the_command_line(where: str) -> None:
    words = [str(word) for word in COMMANDS[where]]
    if words == ["--help"]:
        return
    with click.Context(cli) as context:
        name, command, rest = cli.resolve_command(context, words)
        assert command is not None
        command.make_context(name, rest, parent=context)


def test_the_images_start_the_command_line() -> None:
    assert last_in_dockerfile("ENTRYPOINT", "producer") == ["deconvoy"]
    assert last_in_dockerfile("ENTRYPOINT", "worker") == ["deconvoy"]


def test_workers_are_asked_for_their_health_where_they_serve_it() -> None:
    assert last_in_dockerfile("    CMD", "worker") == HEALTH_COMMAND
    pod = pods()["base/worker"]
    probes = [pod["containers"][0][probe] for probe in ("startupProbe", "livenessProbe")]
    assert [probe["exec"]["command"] for probe in probes] == [HEALTH_COMMAND] * 2
    for where, words in COMMANDS.items():
        if words[0] == "worker":
            assert words[words.index("--metrics-port") + 1] == "9100", where


def test_a_worker_in_its_longest_pause_is_not_started_anew() -> None:
    probe = pods()["base/worker"]["containers"][0]["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > Restarts().longest_pause_s


def test_workers_have_the_time_to_give_their_shard_back() -> None:
    for name in ("deconvoy.env.example", "kubernetes/base/settings.env"):
        assert int(variables(DOCKER / name)["DECONVOY_SHUTDOWN_S"]) == Settings().shutdown_s
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > END_S
    assert pods()["base/worker"]["terminationGracePeriodSeconds"] > END_S


def test_fewer_workers_are_wanted_only_after_as_long_as_a_shard_may_take() -> None:
    (scaled,) = manifests("ScaledObject")
    behaviour = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] >= Settings().shard_time_limit_s
    assert scaled["spec"]["minReplicaCount"] >= 1  # the counts come from workers
    (target,) = [name for name in pods() if name == f"base/{scaled['spec']['scaleTargetRef']['name']}"]
    assert "replicas" not in next(
        each["spec"] for each in manifests("Deployment") if each["metadata"]["name"] == Path(target).name
    )


def test_beat_is_alone() -> None:
    (beat,) = [each for each in manifests("Deployment") if each["metadata"]["name"] == "beat"]
    assert (beat["spec"]["replicas"], beat["spec"]["strategy"]["type"]) == (1, "Recreate")
    assert SERVICES["beat"]["deploy"]["replicas"] == 1


def test_each_worker_of_the_overlay_has_one_gpu() -> None:
    (container,) = pods()["gpu/worker"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["args"][1:3] == ["--gpus", "0"]


@pytest.mark.parametrize("name", SERVICES)
def test_services_have_no_more_rights_than_they_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "cap_add" not in service or name == "s3"
    assert "privileged" not in service


@pytest.mark.parametrize("name", [name for name in pods() if name.startswith("base/")])
def test_pods_have_no_more_rights_than_they_need(name: str) -> None:
    pod = pods()[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"secretRef": {"name": "deconvoy"}} in container["envFrom"]
        assert "memory" in container["resources"]["limits"]


def test_images_end_as_a_user_who_is_a_number_and_not_root() -> None:
    stages = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)[1:]
    for stage in stages:
        if stage.split()[0] in ("producer", "flower", "worker"):
            assert re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1] == "10001:10001"


def test_secrets_stand_in_no_file() -> None:
    assert not [*manifests("Secret")]
    for name, value in variables(DOCKER / ".env.example").items():
        if re.search("PASSWORD|KEY", name):
            assert value == "change-me"


def test_every_image_has_a_version() -> None:
    images = [value for name, value in variables(DOCKER / ".env.example").items() if name.endswith("_IMAGE")]
    assert len(images) == 5
    images += re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert [image for image in images if not re.search(r":v?\d+\.\d+", image)] == []


def test_our_own_images_have_the_version_of_the_project() -> None:
    own = [each["image"] for each in SERVICES.values() if each["image"].split(":")[0] in OWN_IMAGES]
    assert {image.split(":")[1] for image in own} == {VERSION}
    (base,) = documents(DOCKER / "kubernetes" / "base" / "kustomization.yaml")
    assert {image["newTag"] for image in base["images"]} == {VERSION}
    named = {
        container["image"]
        for name, pod in pods().items()
        if "base" in name
        for container in pod["containers"]
    }
    assert named == {image["name"] for image in base["images"]}
    assert set(re.findall(r"^ARG VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)) == {VERSION}


@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_every_manifest_is_one_of_its_folder_and_none_is_missing(folder: str) -> None:
    path = DOCKER / "kubernetes" / folder
    (kustomization,) = documents(path / "kustomization.yaml")
    named: list[Any] = [
        *kustomization["resources"],
        *(patch["path"] for patch in kustomization.get("patches", [])),
    ]
    there = {each.name for each in MANIFESTS if each.parent == path} - {"kustomization.yaml"}
    assert {name for name in named if not name.startswith("../")} == there
    assert all((path / name).exists() for name in named)


def test_what_the_images_are_built_from_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = set()
    for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        copied.update(words.split()[:-1])
    mounted = set(re.findall(r"--mount=type=bind,source=(docker/locks)", DOCKERFILE))
    assert copied | mounted == sent
    assert all((ROOT / path).exists() for path in sent)


def test_secrets_are_made_once_each_its_own(tmp_path: Path) -> None:
    for name in (".env.example", "deconvoy.env.example", "prepare.sh", "redis/users.acl.example"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(DOCKER / name, tmp_path / name)

    def prepare() -> dict[str, bytes]:
        subprocess.run([tmp_path / "prepare.sh"], check=True)
        made = (".env", "deconvoy.env", "redis/users.acl")
        return {name: (tmp_path / name).read_bytes() for name in made}

    first = prepare()
    made = variables(tmp_path / ".env")
    secrets = [value for name, value in made.items() if re.search("PASSWORD|KEY", name)]
    assert len(set(secrets)) == len(secrets) == 5
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets)
    assert made.keys() == variables(DOCKER / ".env.example").keys()
    assert f"#{sha256(made['REDIS_PASSWORD'].encode()).hexdigest()}".encode() in first["redis/users.acl"]
    assert not any(secret.encode() in first["redis/users.acl"] for secret in secrets)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert prepare() == first
