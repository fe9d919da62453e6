"""The counted code is what loading and scoring import, no more and no less."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from pygolf.errors import DataError
from pygolf.score.code_bytes import code_archive, code_files, pack


def unpack(archive: bytes) -> dict[str, bytes]:
    stream = io.BytesIO(zstandard.ZstdDecompressor().decompress(archive))
    with tarfile.open(fileobj=stream) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of the same shape with every kind of import and include."""
    files = {
        "pygolf/__init__.py": "",
        "pygolf/errors.py": "from pygolf import _core\n",
        "pygolf/kernels.py": "import pygolf._ops\n",
        "pygolf/deep/__init__.py": "from . import sibling\n",
        "pygolf/deep/sibling.py": "import numpy.linalg\nX = 1\n",
        "pygolf/deep/constant.py": "def late():\n    from pygolf.errors import Y\n",
        "pygolf/model/__init__.py": "",
        "pygolf/model/load.py": "from pygolf.deep.constant import late\n",
        "pygolf/score/__init__.py": "",
        "pygolf/score/score_file.py": "import pygolfer\nfrom pygolf.model import load\n",
        "pygolf/score/rules.py": "from pygolf import train\n",
        "pygolf/train/__init__.py": "",
        "csrc/binding/host_a.cpp": '#include "host_a.hpp"\n#include <vector>\n',
        "csrc/binding/host_a.hpp": '#  include "pygolf/reader.hpp"\n',
        "csrc/binding/torch_ops.cpp": '#include "pygolf/solver.hpp"\n',
        "csrc/include/pygolf/reader.hpp": "",
        "csrc/include/pygolf/solver.hpp": "",
        "csrc/core/reader.cpp": '#include "pygolf/reader.hpp"\n#include "table.inc"\n',
        "csrc/core/reader_parts.cpp": "",
        "csrc/core/solver_tile.cpp": "",
        "csrc/core/no_header.cpp": "",
        "csrc/core/other_part.cpp": "",
        "csrc/core/other_whole.hpp": "",
        "csrc/core/table.inc": "",
        "csrc/core/solver.cpp": "",
        "csrc/cuda/reader.cu": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


COUNTED = [
    "csrc/binding/host_a.cpp",
    "csrc/binding/host_a.hpp",
    "csrc/core/no_header.cpp",
    "csrc/core/reader.cpp",
    "csrc/core/reader_parts.cpp",
    "csrc/core/table.inc",
    "csrc/include/pygolf/reader.hpp",
    "pygolf/__init__.py",
    "pygolf/deep/__init__.py",
    "pygolf/deep/constant.py",
    "pygolf/deep/sibling.py",
    "pygolf/errors.py",
    "pygolf/model/__init__.py",
    "pygolf/model/load.py",
    "pygolf/score/__init__.py",
    "pygolf/score/score_file.py",
]


def test_follows_imports_and_includes(tree: Path) -> None:
    assert list(code_files(tree / "pygolf")) == COUNTED


def test_an_installed_package_counts_the_same(tree: Path) -> None:
    before = code_archive(tree / "pygolf")
    (tree / "csrc").rename(tree / "pygolf" / "csrc")
    assert code_archive(tree / "pygolf") == before


def test_the_op_library_brings_its_sources(tree: Path) -> None:
    (tree / "pygolf/model/load.py").write_text("from pygolf import kernels\n", encoding="utf-8")
    files = set(code_files(tree / "pygolf"))
    solver = {"csrc/include/pygolf/solver.hpp", "csrc/core/solver.cpp", "csrc/core/solver_tile.cpp"}
    assert {"pygolf/kernels.py", "csrc/binding/torch_ops.cpp", *solver} <= files
    assert "csrc/cuda/reader.cu" not in files  # no kernel header is included


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("pygolf/deep/constant.py", "pygolf.deep.constant: no source file"),
        ("csrc/core/table.inc", '#include "table.inc" is not in'),
        ("csrc/binding/host_a.cpp", r"has no host_\*.cpp"),
    ],
)
def test_a_missing_source_is_an_error_and_not_a_smaller_count(tree: Path, missing: str, message: str) -> None:
    (tree / missing).unlink()
    with pytest.raises(DataError, match=message):
        code_files(tree / "pygolf")


def test_pygolf_itself() -> None:
    size = code_archive()
    assert size == code_archive()
    wanted = {
        "pygolf/config.py",
        "pygolf/data/tokenizer.py",
        "pygolf/model/attention.py",
        "pygolf/model/gpt.py",
        "pygolf/model/load.py",
        "pygolf/score/sliding.py",
        "csrc/binding/host_artifact.cpp",
        "csrc/core/codec.cpp",
        "csrc/include/pygolf/artifact.hpp",
    }
    assert wanted <= set(size.files)
    strangers = (
        "pygolf/train/",
        "pygolf/quant/",
        "pygolf/cli.py",
        "pygolf/data/shards.py",
        "csrc/core/rd_",
        "csrc/cuda/",
    )
    assert not [name for name in size.files if name.startswith(strangers)]
    assert 0 < size.archive_bytes < size.raw_bytes < 1_000_000


def test_archive_holds_the_files_whatever_their_order() -> None:
    files = {"b/two.cpp": b"\x00\xff" * 700, "a.py": b"x = 1\n", "empty.py": b""}
    archive = pack(files)
    assert unpack(archive) == files
    assert pack(dict(reversed(files.items()))) == archive
