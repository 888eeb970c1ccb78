"""This Python installation as five sources of real text that is on every machine.

An item is a distribution, a topic, a module or a file; its name is the end of the document's id:

    python_readmes      certifi-2026.1.4                      the long description
    python_reference    yield                                 a topic of pydoc's help()
    python_docstrings   json.decoder                          all docstrings of a module
    python_code         json/decoder.py                       its source
    python_licenses     certifi-2026.1.4/licenses/LICENSE     a license, notice or copying file

Names and texts hold no path of this machine, so that two machines with the same distributions
read the same documents.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution
from pathlib import Path

from data_pipeline.config import Reader, Source
from data_pipeline.storage.compressed import HEAD_BYTES
from data_pipeline.storage.document import BadInput, Document

# Not text of the library itself: tests, what is installed into it, what was generated for this
# machine, and the reference, which is a source of its own.
SKIPPED = re.compile(
    r"tests?|idle_test|idlelib|lib2to3|site-packages|dist-packages|__pycache__|pydoc_data"
    r"|config-.*|_sysconfigdata.*\.py"
)

LICENCE_FILE = re.compile(  # LICENSE.txt, THIRD_PARTY_NOTICES, LICENSE-MIT, XSIMD_LICENSE
    r"(?:\w+[-_.])?(?:licen[cs]e|copying|copyright|notice)s?(?:[-_.][\w.+-]*)?", re.IGNORECASE
)
NOT_PROSE = re.compile(r"\.(?:py[ic]?|json|ya?ml|toml|xml|html|js|css|csv|[ch])", re.IGNORECASE)
INTERPRETER = "python"

Item = tuple[str, int, str]  # name, bytes, version


def items(reader: Reader) -> list[Item]:
    """Lists a source in the order of names; raises ValueError where an installation lacks it."""
    match reader:
        case Reader.PYTHON_READMES:
            found = [
                (name, len(text), "")
                for name, distribution in _distributions().items()
                if (text := _description(distribution))
            ]
        case Reader.PYTHON_REFERENCE:
            version = platform.python_version()
            found = [(name, len(text), version) for name, text in _topics().items()]
        case Reader.PYTHON_DOCSTRINGS:
            found = [(_module_name(file), size, v) for file, size, v in _library_files()]
        case Reader.PYTHON_CODE:
            found = _library_files()
        case Reader.PYTHON_LICENSES:
            found = [(name, path.stat().st_size, "") for name, path in _licenses().items()]
        case _:
            raise AssertionError(f"{reader} is not a part of the Python installation")
    return sorted(found)


def read(reader: Reader, names: Sequence[str], source: Source) -> Iterator[Document | BadInput]:
    """Yields the documents of these items; a module without docstrings gives none."""
    match reader:
        case Reader.PYTHON_READMES:
            distributions = _distributions()
            for name in names:
                distribution = distributions[name]
                meta = {"file": name, "license": _license_name(distribution)}
                yield _document(name, _description(distribution), meta, source)
        case Reader.PYTHON_REFERENCE:
            topics = _topics()
            for name in names:
                yield _document(name, topics[name], {"file": name}, source)
        case Reader.PYTHON_DOCSTRINGS:
            files = {_module_name(file): file for file, _, _ in _library_files()}
            for name in names:
                yield from _docstring_document(name, files[name], source)
        case Reader.PYTHON_CODE:
            for name in names:
                yield _file_document(name, _library() / name, source)
        case Reader.PYTHON_LICENSES:
            licenses = _licenses()
            for name in names:
                yield _file_document(name, licenses[name], source)


def docstrings(code: bytes, module: str) -> str:
    """The docstrings of a module in the order of its source, each under its definition's name.

    Parsed, never imported. Raises SyntaxError or ValueError for what is not Python.

    >>> print(docstrings(b"'About hares.'\\nclass Hare:\\n  def run(self): 'Runs.'", "animals"))
    # animals
    <BLANKLINE>
    About hares.
    <BLANKLINE>
    ## animals.Hare.run
    <BLANKLINE>
    Runs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in strings are not ours to report
        tree = ast.parse(code)
    parts = []
    for name, node in _definitions(tree, module):
        if text := ast.get_docstring(node):
            parts.append(f"{'#' if node is tree else '##'} {name}\n\n{text}")
    return "\n\n".join(parts)


_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, name: str) -> Iterator[tuple[str, _Definition]]:
    if isinstance(node, _Definition):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _definitions(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):  # if, try and with hold definitions
            yield from _definitions(child, name)


def _document(name: str, text: str, meta: dict[str, str], source: Source) -> Document:
    meta = {key: value for key, value in meta.items() if value}
    category = source.category or source.name
    return Document(f"{source.name}/{name}", text, source.name, category, meta)


def _file_document(name: str, path: Path, source: Source) -> Document | BadInput:
    raw = path.read_bytes()
    try:
        return _document(name, raw.decode("utf-8-sig"), {"file": name}, source)
    except UnicodeDecodeError as error:
        return BadInput("invalid_utf8", name, 0, str(error), raw[:HEAD_BYTES])


def _docstring_document(name: str, file: str, source: Source) -> Iterator[Document | BadInput]:
    raw = (_library() / file).read_bytes()
    try:
        text = docstrings(raw, name)
    except (SyntaxError, ValueError, RecursionError) as error:
        yield BadInput("invalid_python", file, 0, str(error), raw[:HEAD_BYTES])
        return
    if text:
        yield _document(name, text, {"file": file}, source)


@functools.cache
def _distributions() -> dict[str, Distribution]:
    """name-version -> distribution; of two with one name the one that would be imported."""
    found: dict[str, Distribution] = {}
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and (key := re.sub(r"[-_.]+", "-", name).lower()) not in seen:
            seen.add(key)
            found[f"{name}-{distribution.version}"] = distribution
    return found


def _description(distribution: Distribution) -> str:
    text = distribution.metadata.json.get("description") or ""
    assert isinstance(text, str)
    return "" if text.strip() in ("", "UNKNOWN") else text  # what setuptools once wrote for none


def _license_name(distribution: Distribution) -> str:
    """The license in one line, as metadata has it since 2.4, or before, or as a classifier."""
    metadata = distribution.metadata.json
    given = str(metadata.get("license_expression") or metadata.get("license") or "")
    if not given or len(given) > 100 or "\n" in given:
        classifiers = [name for name in metadata.get("classifier", []) if "License :: " in name]
        given = ", ".join(name.rsplit(" :: ", 1)[-1] for name in classifiers)
    return given


@functools.cache
def _topics() -> dict[str, str]:
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ValueError(_lacks("the language reference (pydoc_data.topics)")) from error
    return {str(name): str(text) for name, text in topics.items() if text.strip()}


def _library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _lacks(what: str) -> str:
    return (
        f"This Python ({platform.python_version()}) comes without {what}. Install a full one (on "
        "Debian and Ubuntu: the package libpython3-stdlib), or take the source out of the recipe."
    )


@functools.cache
def _library_files() -> list[Item]:
    """The library's source files that have any code, relative to its folder."""
    library = _library()
    found = []
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if not SKIPPED.fullmatch(name)]
        for name in files:
            path = Path(folder, name)
            if name.endswith(".py") and not SKIPPED.fullmatch(name) and path.is_file():
                relative, size = path.relative_to(library).as_posix(), path.stat().st_size
                if size and path.read_bytes().strip():
                    found.append((relative, size, platform.python_version()))
    if not any(name == "ast.py" for name, _, _ in found):
        raise ValueError(_lacks("the source files of its standard library"))
    return sorted(found)


def _module_name(file: str) -> str:
    """json/decoder.py -> json.decoder, json/__init__.py -> json."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def _licenses() -> dict[str, Path]:
    """distribution/file -> path, for license files that are there and hold something."""
    found = {}
    for name, distribution in _distributions().items():
        for file in _recorded(distribution):
            path = Path(str(distribution.locate_file(file)))
            if path.is_file() and path.stat().st_size:
                inside = re.sub(r"^[^/]*\.(dist|egg)-info/", "", file)
                found[f"{name}/{inside}"] = path
    library = _library()
    for path in (library / "LICENSE.txt", library.parent / "LICENSE.txt", library / "LICENSE"):
        if path.is_file():
            found[f"{INTERPRETER}-{platform.python_version()}/LICENSE.txt"] = path
            break
    return found


def _recorded(distribution: Distribution) -> list[str]:
    """The license files that a distribution installed, by its RECORD or what stands for it."""
    record = distribution.read_text("RECORD")  # read here: `files` takes a second for a large one
    if record is None:
        files = [file.as_posix() for file in distribution.files or []]
    else:
        files = [line.split(",", 1)[0] for line in record.splitlines()]
    return [
        file
        for file in files
        if LICENCE_FILE.fullmatch(file.rsplit("/", 1)[-1])
        and not NOT_PROSE.fullmatch(Path(file).suffix)
    ]
