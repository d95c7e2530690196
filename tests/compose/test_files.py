"""What the stack is made of, without starting it: these run without Docker."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from extproc.demo.processes import validate

ROOT = Path(__file__).parents[2]
ENVOY = ROOT / "deploy" / "compose" / "envoy.yaml"
COMMAND = ["sed", "-f", "deploy/compose/envoy.sed", "envoy/envoy.yaml"]


def services() -> dict[str, dict[str, Any]]:
    """Return the services of the stack, by name."""
    found = yaml.safe_load((ROOT / "deploy" / "docker-compose.yml").read_text())["services"]
    assert isinstance(found, dict)
    return found


def mounts(service: str) -> dict[str, Path]:
    """Return what is mounted into a service, by where; volumes of the engine's left out."""
    pairs = [mount.split(":")[:2] for mount in services()[service].get("volumes", [])]
    return {target: ROOT / "deploy" / source for source, target in pairs if source.startswith(".")}


def test_envoy_runs_on_the_configuration_that_is_tested() -> None:
    """The stack's Envoy runs on envoy/envoy.yaml, with other addresses and nothing else."""
    made = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ENVOY.read_text() == made, f"run: {' '.join(COMMAND)} > {ENVOY.relative_to(ROOT)}"


def test_envoy_has_no_address_of_one_machine() -> None:
    """Between containers, 127.0.0.1 would be the wrong one, and a static cluster would not look up a name."""
    left = [line for line in ENVOY.read_text().splitlines() if "address: 127.0.0.1" in line or "type: STATIC" in line]
    assert left == []


def test_envoy_takes_its_configuration() -> None:
    """Envoy takes it."""
    assert validate(ENVOY) == (0, f"configuration '{ENVOY}' OK\n")


def test_mounted_files_exist() -> None:
    """Whatever is mounted is there, where Docker would make an empty folder of it; and cannot be written to."""
    assert [path for service in services() for path in mounts(service).values() if not path.exists()] == []
    volumes = [volume for service in services().values() for volume in service.get("volumes", [])]
    assert [volume for volume in volumes if volume.startswith(".") and not volume.endswith(":ro")] == []


def test_grafana_finds_what_is_provisioned() -> None:
    """Grafana is told of the dashboard where it is mounted, and of Prometheus where the stack has it."""
    mounted = mounts("grafana")
    provisioning = mounted["/etc/grafana/provisioning"]
    (dashboards,) = yaml.safe_load((provisioning / "dashboards" / "extproc.yaml").read_text())["providers"]
    folder = dashboards["options"]["path"]
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (mounted[folder] / Path(home).relative_to(folder)).is_file()
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert services()["prometheus"]["ports"] == ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]


def test_images_have_versions() -> None:
    """Every image that is not built here is of a named version, and is not fetched again each time."""
    images = {name: service["image"] for name, service in services().items() if "build" not in service}
    assert all(image.partition(":")[2] not in ("", "latest") for image in images.values()), images
    assert [name for name, service in services().items() if "pull_policy" in service] == []
