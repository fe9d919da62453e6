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
    build_editable,
    build_sdist,
    build_wheel,
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


def get_requires_for_build_sdist(config_settings: dict[str, Any] | None = None) -> list[str]:
    return _build.get_requires_for_build_sdist(config_settings)


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    return _build.get_requires_for_build_wheel(config_settings) + _torch_if_missing()


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    return _build.get_requires_for_build_editable(config_settings) + _torch_if_missing()


def _torch_if_missing() -> list[str]:
    return [] if _torch_folder() else [TORCH]


def _torch_folder() -> Path | None:
    """The installed torch with stable-ABI headers (2.10 or newer); tells CMake where it is."""
    named = os.environ.get("PYGOLF_TORCH_DIR")
    folder = Path(named) if named else Path(sysconfig.get_paths()["purelib"]) / "torch"
    if not (folder / "include/torch/csrc/stable/library.h").is_file():
        return None
    os.environ["PYGOLF_TORCH_DIR"] = str(folder)
    return folder
