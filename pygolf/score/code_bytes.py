"""The code bytes that count against the budget beside the artifact.

Counted: the Python and C++ sources of this package that loading and scoring an artifact need, found from the sources
themselves, so that nothing is forgotten or counted by habit:
- Python: pygolf/score/score_file.py, everything of pygolf that it imports, and what that imports.
- C++: the binding sources of the extension modules among those imports (`_core`, `_ops`), every header that they
  include, directly or not, and the sources that implement those headers (x.hpp: x.cpp and x_*.cpp, in cuda/ *.cu;
  a source that has no header of its name counts with the headers that begin with the same word, else with any).
An extension module counts whole, with the parts that scoring never calls (the token loader in `_core`), because it
cannot be built without them. Not counted: training, the quantizer, the command line, build scripts and tests.
Both kinds are read as they are, comments included, and packed as one zstd-19 tar.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

import pygolf
from pygolf.errors import DataError

ZSTD_LEVEL = 19
BINDINGS = {"pygolf._core": "host_*.cpp", "pygolf._ops": "torch_ops*.cpp"}
"""Extension module -> its sources in csrc/binding."""

_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class CodeSize:
    """Size of the sources that loading and scoring need."""

    raw_bytes: int
    """Sum of the files' sizes."""
    archive_bytes: int
    """Size of the zstd-19 archive of them: what counts against the budget."""
    files: tuple[str, ...]
    """Their names, sorted."""


def code_archive(package: Path | None = None) -> CodeSize:
    """Counts the code of an installed package or a source tree; default: the pygolf that is running.

    Raises DataError if a source file is missing.
    """
    files = code_files(package or Path(pygolf.__file__).parent)
    return CodeSize(sum(map(len, files.values())), len(pack(files)), tuple(files))


def code_files(package: Path) -> dict[str, bytes]:
    """Name -> content of the counted files, sorted; names begin with pygolf/ or csrc/ wherever the files lie."""
    modules = _python_closure(package)
    files = {f"pygolf/{path.relative_to(package)}": path for path in modules.values() if path is not None}
    extensions = [name for name, path in modules.items() if path is None]
    if extensions:
        csrc = _csrc(package)
        files |= {f"csrc/{path.relative_to(csrc)}": path for path in _cpp_closure(csrc, extensions)}
    return {name: files[name].read_bytes() for name in sorted(files)}


def code_digest() -> str:
    """SHA-256 (hex) over all sources of the running package, training and kernels included."""
    package = Path(pygolf.__file__).parent
    csrc = _csrc(package)
    sources = {f"pygolf/{path.relative_to(package)}": path for path in package.rglob("*.py")}
    suffixes = {".cpp", ".hpp", ".inc", ".cu", ".cuh"}
    sources |= {f"csrc/{path.relative_to(csrc)}": path for path in csrc.rglob("*") if path.suffix in suffixes}
    digest = hashlib.sha256()
    for name in sorted(sources):
        content = sources[name].read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def pack(files: dict[str, bytes]) -> bytes:
    """One zstd-19 tar without times, owners or anything else that differs between machines."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(buffer.getvalue())


def _python_closure(package: Path) -> dict[str, Path | None]:
    """Module name -> source file of all that scoring imports; None for an extension module."""
    waiting = ["pygolf.score.score_file"]
    modules: dict[str, Path | None] = {}
    while waiting:
        name = waiting.pop()
        if name in modules:
            continue
        modules[name] = path = _source_of(package, name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        if path is not None:
            waiting += _imports(package, name, path)
    return modules


def _source_of(package: Path, name: str) -> Path | None:
    if name in BINDINGS:
        return None
    path = _find_module(package, name)
    if path is None:
        raise DataError(f"{name}: no source file in {package}, but scoring imports it; reinstall pygolf")
    return path


def _find_module(package: Path, name: str) -> Path | None:
    stem = package.joinpath(*name.split(".")[1:])
    candidates = (stem / "__init__.py", stem.with_name(stem.name + ".py"))
    return next((path for path in candidates if path.is_file()), None)


def _imports(package: Path, name: str, path: Path) -> Iterator[str]:
    """Names of the pygolf modules that a module imports anywhere in its source."""
    parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), parent)
            if _is_ours(source):
                yield source
                # `from package import name` imports a module, if there is one of that name.
                full = (f"{source}.{alias.name}" for alias in node.names)
                yield from (n for n in full if n in BINDINGS or _find_module(package, n))


def _is_ours(name: str) -> bool:
    return name == "pygolf" or name.startswith("pygolf.")


def _csrc(package: Path) -> Path:
    """An installed package carries its C++ sources; in a source tree they lie beside it."""
    for folder in (package / "csrc", package.parent / "csrc"):
        if (folder / "binding").is_dir():
            return folder.resolve()
    raise DataError(
        f"no C++ sources in {package / 'csrc'} or {package.parent / 'csrc'}: cannot count the code; reinstall pygolf"
    )


def _cpp_closure(csrc: Path, extensions: Iterable[str]) -> set[Path]:
    waiting = [path for name in extensions for path in _binding_sources(csrc, name)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [_resolve_include(csrc, path, name) for name in _INCLUDE.findall(path.read_text("utf-8"))]
            waiting += _implementations(csrc, path)
    return found


def _binding_sources(csrc: Path, extension: str) -> list[Path]:
    sources = sorted((csrc / "binding").glob(BINDINGS[extension]))
    if not sources:
        raise DataError(f"{csrc / 'binding'} has no {BINDINGS[extension]}: cannot count the code; reinstall pygolf")
    return sources


def _resolve_include(csrc: Path, source: Path, name: str) -> Path:
    for folder in (source.parent, csrc / "include", csrc / "core", csrc / "cuda"):
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise DataError(f'{source}: #include "{name}" is not in {csrc}: cannot count the code; reinstall pygolf')


def _implementations(csrc: Path, header: Path) -> list[Path]:
    """Sources that implement a header: those of its name and those that have no header of their name at all."""
    if header.suffix not in (".hpp", ".cuh"):
        return []
    kernels = header.is_relative_to(csrc / "cuda")
    folders = [csrc / "cuda"] if kernels else [csrc / "core", csrc / "include" / "pygolf"]
    headers = [path.stem for folder in folders for path in folder.glob("*.[hc]*") if path.suffix in (".hpp", ".cuh")]
    sources = [path for path in sorted(folders[0].iterdir()) if path.suffix in (".cpp", ".cu")]
    return [path for path in sources if header.stem in _headers_of(path.stem, headers)]


def _headers_of(source: str, headers: list[str]) -> list[str]:
    """The headers that a source may implement: those of its name, else those that begin like it, else any."""
    named = [header for header in headers if _is_part(source, header)]
    return named or [header for header in headers if _is_part(header, source.split("_")[0])] or headers


def _is_part(source: str, header: str) -> bool:
    return source == header or source.startswith(header + "_")
