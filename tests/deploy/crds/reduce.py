"""Reduce Istio's custom resource definitions to the schemas that the tests need, without their descriptions.

python tests/deploy/crds/reduce.py VERSION FOLDER, with FOLDER the module istio.io/api: see SOURCE.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

VERSIONS = {
    "EnvoyFilter": "v1alpha3",
    "ServiceEntry": "v1",
    "DestinationRule": "v1",
    "VirtualService": "v1",
    "Telemetry": "v1",
}


def without_descriptions(schema: Any) -> Any:  # noqa: ANN401
    """Leave out the texts; a property named `description` stays."""
    match schema:
        case {"description": str(), **rest}:
            return without_descriptions(rest)
        case dict():
            return {
                key: {name: without_descriptions(member) for name, member in value.items()}
                if key == "properties"
                else without_descriptions(value)
                for key, value in schema.items()
            }
        case list():
            return [without_descriptions(member) for member in schema]
        case _:
            return schema


def main(version: str, folder: Path) -> None:
    """Write the schemas of one version of Istio's API."""
    lines = []
    definitions = folder / "kubernetes" / "customresourcedefinitions.gen.yaml"
    for definition in filter(None, yaml.safe_load_all(definitions.read_text(encoding="utf-8"))):
        spec = definition["spec"]
        kind = spec["names"]["kind"]
        for found in spec["versions"]:
            if VERSIONS.get(kind) == found["name"]:
                schema = without_descriptions(found["schema"]["openAPIV3Schema"])
                name = f"{spec['group']}/{found['name']} {kind}"
                lines.append(f"{json.dumps(name)}: {json.dumps(schema, separators=(',', ':'))}")
    text = "{\n" + ",\n".join(sorted(lines)) + "\n}\n"
    Path(__file__).with_name(f"{version}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
