"""Build backend: scikit-build-core, plus torch as a build requirement only where its headers are missing.

pip builds a package before it installs its dependencies, so an empty environment has no torch headers yet; one
that has torch must not download another. The target's own site-packages are looked up, also under isolation.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Any

from scikit_build_core import build as _build
from scikit_build_core.build import (
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

TORCH = "torch>=2.10,<2.14"

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    return _build.get_requires_for_build_wheel(config_settings) + _torch_if_missing()


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    return _build.get_requires_for_build_editable(config_settings) + _torch_if_missing()


def build_wheel(directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    _name_torch_folder()
    return _build.build_wheel(directory, config_settings, metadata_directory)


def build_editable(directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    _name_torch_folder()
    return _build.build_editable(directory, config_settings, metadata_directory)


def _torch_if_missing() -> list[str]:
    return [] if _torch_folder() else [TORCH]


def _name_torch_folder() -> None:
    """Tells CMake where the target's torch is: every hook is a process of its own, and isolation hides it there."""
    if folder := _torch_folder():
        os.environ["PYGOLF_TORCH_DIR"] = str(folder)


def _torch_folder() -> Path | None:
    """The target's torch with stable-ABI headers (2.10 or newer), or the one that PYGOLF_TORCH_DIR names."""
    named = os.environ.get("PYGOLF_TORCH_DIR")
    folder = Path(named) if named else Path(sysconfig.get_paths()["purelib"]) / "torch"
    return folder if (folder / "include/torch/csrc/stable/library.h").is_file() else None
