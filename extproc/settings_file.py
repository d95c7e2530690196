"""The settings' file: YAML, of which every key has a line for those who look for a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from extproc import formats
from extproc.core.format import Format
from extproc.declared import DeclarationError, declared
from extproc.settings import FORMATS, NAMES, SettingsError, check, unknown

_KNOWN = (*NAMES, FORMATS)


def read(file: Path) -> dict[str, object]:
    """Return what a file sets, checked.

    Raises:
        SettingsError: it cannot be read, or sets what cannot be set so; the message names the line.
    """
    found: dict[str, object] = {}
    root, content = _parsed(file)
    for key, node in root.value if root is not None else ():
        where = f"{file}, line {key.start_mark.line + 1}"
        name = key.value
        if name not in _KNOWN:
            raise SettingsError(f"{where}: {unknown(str(name), _KNOWN)}")
        if name in found:
            raise SettingsError(f"{where}: {name} is set twice")
        if name == FORMATS:
            found[name] = _formats(file, node)
            continue
        value = content[name]
        found[name] = tuple(value) if isinstance(value, list) else value
        try:
            check(name, found[name])
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from None
    return found


def _parsed(file: Path) -> tuple[yaml.MappingNode | None, dict[str, Any]]:
    """Return a YAML file as nodes, which know their lines, and as values."""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return None, {}
    if not isinstance(root, yaml.MappingNode):
        raise SettingsError(f"{file}: a mapping is expected; known keys: {', '.join(_KNOWN)}")
    return root, content


def _formats(file: Path, node: yaml.Node) -> tuple[Format, ...]:
    try:
        return declared(node, formats.FORMATS)
    except DeclarationError as error:
        raise SettingsError(f"{file}, line {error.line}: {error}") from None
