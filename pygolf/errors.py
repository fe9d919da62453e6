"""Every error that pygolf raises on purpose. The command line prints their text and exits with status 2."""

from __future__ import annotations

try:
    from pygolf._core import (
        ArgumentError,
        ChecksumError,
        FormatError,
        IoError,
        NumericError,
        PygolfError,
        VersionError,
    )
except ModuleNotFoundError as missing:
    raise ImportError(
        "pygolf's compiled part is not here: this is the source tree, not the installed package. "
        "Run 'pip install .' and start from another folder, or use the 'pygolf' command"
    ) from missing

__all__ = [
    "ArgumentError",
    "BudgetError",
    "ChecksumError",
    "ConfigError",
    "DataError",
    "FormatError",
    "IoError",
    "NonFiniteLossError",
    "NumericError",
    "PygolfError",
    "VersionError",
]


class ConfigError(PygolfError):
    """A setting is out of range or contradicts another; the message names both."""


class DataError(PygolfError):
    """Text, tokenizer or token data that is missing or does not fit what it is used with."""


class BudgetError(PygolfError):
    """The artifact cannot be brought under the byte budget; the message says by how many bytes."""


class NonFiniteLossError(PygolfError):
    """Training met a NaN or infinite loss; the last good checkpoint is kept."""
