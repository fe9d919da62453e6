"""config.toml: a configuration as a file and back; unknown settings are errors."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pygolf.config import RunConfig
from pygolf.errors import ConfigError

S = TypeVar("S")


def _field_names(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def dump_toml(config: RunConfig) -> str:
    """config.toml of a run folder. Settings that are None are left out; loading gives an equal config."""
    plain = config.sections()
    tables = {key: value for key, value in plain.items() if isinstance(value, dict)}
    lines = _toml_lines({key: value for key, value in plain.items() if key not in tables})
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_toml_lines(table)]
    return "\n".join(lines) + "\n"


def _toml_lines(table: dict[str, Any]) -> list[str]:
    # A JSON scalar or list of scalars is also a TOML one.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]


def load_toml(path: Path) -> RunConfig:
    """Reads a config.toml. Raises ConfigError for a file that is missing, broken or has unknown settings."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} not found; is {path.parent} a run folder made by 'pygolf run'?") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return from_sections(table)


def from_sections(table: dict[str, Any]) -> RunConfig:
    """A RunConfig from nested plain values."""
    values = dict(table)
    for f in dataclasses.fields(RunConfig):
        section = f.default_factory
        if isinstance(section, type) and f.name in values:
            values[f.name] = build_section(section, values[f.name], f"{f.name}.")
    return build_section(RunConfig, values, "")


def build_section(cls: type[S], values: dict[str, Any], prefix: str) -> S:
    """A config dataclass from plain values. Raises ConfigError, naming `prefix` + field, for an unknown setting."""
    unknown = sorted(set(values) - set(_field_names(cls)))
    if unknown:
        raise ConfigError(f"unknown setting {prefix}{unknown[0]}; known: {', '.join(_field_names(cls))}")
    return cls(**{name: _restore(cls, name, value) for name, value in values.items()})


def _restore(cls: type, name: str, value: Any) -> Any:
    declared = str(cls.__annotations__[name])
    if isinstance(value, str) and "Path" in declared:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value
