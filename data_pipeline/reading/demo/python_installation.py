"""Reader of five sources of real text in a Python installation, for runs without other data.

An item is a distribution, a topic, a module or a file. Its name is the last part of the document's
id:

    python_readmes      certifi-2026.1.4                      the long description
    python_reference    yield                                 a topic of pydoc's help()
    python_docstrings   json.decoder                          all docstrings of a module
    python_code         json/decoder.py                       the source of a module
    python_licenses     certifi-2026.1.4/licenses/LICENSE     a license, notice or copying file

Names and texts contain no path of the machine, so machines with the same distributions read the
same documents.
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
from data_pipeline.reading.listing import InputFile
from data_pipeline.storage.compressed import HEAD_BYTES
from data_pipeline.storage.document import BadInput, Document

# Files that are not part of the library: tests, installed packages, files generated for the
# machine, and the language reference, which is a source of its own.
SKIPPED = re.compile(
    r"tests?|idle_test|idlelib|lib2to3|site-packages|dist-packages|__pycache__|pydoc_data"
    r"|config-.*|_sysconfigdata.*\.py"
)

LICENSE_FILE = re.compile(  # LICENSE.txt, THIRD_PARTY_NOTICES, LICENSE-MIT, XSIMD_LICENSE
    r"(?:\w+[-_.])?(?:licen[cs]e|copying|copyright|notice)s?(?:[-_.][\w.+-]*)?", re.IGNORECASE
)
NOT_PROSE = re.compile(r"\.(?:py[ic]?|json|ya?ml|toml|xml|html|js|css|csv|[ch])", re.IGNORECASE)
INTERPRETER = "python"


def list_items(reader: Reader) -> list[InputFile]:
    """Lists the items of a source in the order of their names.

    Raises:
      ValueError: the Python installation does not contain the source.
    """
    match reader:
        case Reader.PYTHON_READMES:
            items = [
                InputFile(name, len(text), "")
                for name, distribution in _distributions().items()
                if (text := _description(distribution))
            ]
        case Reader.PYTHON_REFERENCE:
            version = platform.python_version()
            items = [InputFile(name, len(text), version) for name, text in _topics().items()]
        case Reader.PYTHON_DOCSTRINGS:
            items = [file._replace(name=_module_name(file.name)) for file in _library_files()]
        case Reader.PYTHON_CODE:
            items = _library_files()
        case Reader.PYTHON_LICENSES:
            items = [InputFile(name, path.stat().st_size, "") for name, path in _licenses().items()]
        case _:
            raise AssertionError(f"{reader} is not a source of the Python installation")
    return sorted(items)


def read(reader: Reader, names: Sequence[str], source: Source) -> Iterator[Document | BadInput]:
    """Yields the documents of the named items; a module without docstrings gives none."""
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
            files = {_module_name(file.name): file.name for file in _library_files()}
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
    r"""Returns the docstrings of a module in source order, each below the name of its definition.

    The module is parsed, and never imported.

    Args:
      code: the source of the module.
      module: the name of the module.

    Raises:
      SyntaxError: the source is not valid Python.
      ValueError: the source contains NUL bytes.

    >>> print(docstrings(b"'About hares.'\nclass Hare:\n  def run(self): 'Runs.'", "animals"))
    # animals
    <BLANKLINE>
    About hares.
    <BLANKLINE>
    ## animals.Hare.run
    <BLANKLINE>
    Runs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escapes in strings of other code
        tree = ast.parse(code)
    parts = []
    for name, node in _definitions(tree, module):
        if text := ast.get_docstring(node):
            parts.append(f"{'#' if node is tree else '##'} {name}\n\n{text}")
    return "\n\n".join(parts)


_Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _definitions(node: ast.AST, name: str) -> Iterator[tuple[str, _Definition]]:
    """Yields (qualified name, node) of a definition and of those inside it, in source order."""
    if isinstance(node, _Definition):
        yield name, node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _definitions(child, f"{name}.{child.name}")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):  # definitions inside if, try and with
            yield from _definitions(child, name)


def _document(name: str, text: str, meta: dict[str, str], source: Source) -> Document:
    """Returns the document of an item, without empty metadata."""
    meta = {key: value for key, value in meta.items() if value}
    category = source.category or source.name
    return Document(f"{source.name}/{name}", text, source.name, category, meta)


def _file_document(name: str, path: Path, source: Source) -> Document | BadInput:
    """Returns the document of a whole file."""
    raw = path.read_bytes()
    try:
        return _document(name, raw.decode("utf-8-sig"), {"file": name}, source)
    except UnicodeDecodeError as error:
        return BadInput("invalid_utf8", name, 0, str(error), raw[:HEAD_BYTES])


def _docstring_document(name: str, file: str, source: Source) -> Iterator[Document | BadInput]:
    """Yields the document of a module's docstrings; none if it has no docstring."""
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
    """Returns installed distributions by name-version.

    Of two distributions with one name, the one that would be imported is used.
    """
    result: dict[str, Distribution] = {}
    seen = set()
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name and (key := re.sub(r"[-_.]+", "-", name).lower()) not in seen:
            seen.add(key)
            result[f"{name}-{distribution.version}"] = distribution
    return result


def _description(distribution: Distribution) -> str:
    """Returns the long description of a distribution, "" if it has none."""
    text = distribution.metadata.json.get("description") or ""
    assert isinstance(text, str)
    return "" if text.strip() in ("", "UNKNOWN") else text  # old setuptools wrote UNKNOWN


def _license_name(distribution: Distribution) -> str:
    """Returns the license in one line, from a license field of the metadata or the classifiers."""
    metadata = distribution.metadata.json
    # Metadata version 2.4 introduced license_expression. Some older fields contain a whole license.
    license_name = str(metadata.get("license_expression") or metadata.get("license") or "")
    if not license_name or len(license_name) > 100 or "\n" in license_name:
        classifiers = [name for name in metadata.get("classifier", []) if "License :: " in name]
        license_name = ", ".join(name.rsplit(" :: ", 1)[-1] for name in classifiers)
    return license_name


@functools.cache
def _topics() -> dict[str, str]:
    """Returns the topics of the language reference."""
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise ValueError(_missing_message("the language reference (pydoc_data.topics)")) from error
    return {str(name): str(text) for name, text in topics.items() if text.strip()}


def _library() -> Path:
    """Returns the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def _missing_message(part: str) -> str:
    """Returns the error message for a part that the installation lacks."""
    return (
        f"This Python ({platform.python_version()}) comes without {part}. Install a complete one "
        "(on Debian and Ubuntu: the package libpython3-stdlib), or remove the source from the "
        "recipe."
    )


@functools.cache
def _library_files() -> list[InputFile]:
    """Lists the source files of the standard library that are not empty, relative to its folder."""
    library = _library()
    items = []
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if not SKIPPED.fullmatch(name)]
        for name in files:
            path = Path(folder, name)
            if name.endswith(".py") and not SKIPPED.fullmatch(name) and path.is_file():
                relative, size = path.relative_to(library).as_posix(), path.stat().st_size
                if size and path.read_bytes().strip():
                    items.append(InputFile(relative, size, platform.python_version()))
    if not any(item.name == "ast.py" for item in items):
        raise ValueError(_missing_message("the source files of its standard library"))
    return sorted(items)


def _module_name(file: str) -> str:
    """Returns the module of a file: json.decoder of json/decoder.py, json of json/__init__.py."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@functools.cache
def _licenses() -> dict[str, Path]:
    """Returns the paths of license files that exist and are not empty, by distribution/file."""
    result = {}
    for name, distribution in _distributions().items():
        for file in _license_files(distribution):
            path = Path(str(distribution.locate_file(file)))
            if path.is_file() and path.stat().st_size:
                relative = re.sub(r"^[^/]*\.(dist|egg)-info/", "", file)
                result[f"{name}/{relative}"] = path
    library = _library()
    for path in (library / "LICENSE.txt", library.parent / "LICENSE.txt", library / "LICENSE"):
        if path.is_file():
            result[f"{INTERPRETER}-{platform.python_version()}/LICENSE.txt"] = path
            break
    return result


def _license_files(distribution: Distribution) -> list[str]:
    """Returns the license files among the installed files of a distribution."""
    # RECORD is parsed here because `distribution.files` takes a second for a large distribution.
    record = distribution.read_text("RECORD")
    if record is None:
        files = [file.as_posix() for file in distribution.files or []]
    else:
        files = [line.split(",", 1)[0] for line in record.splitlines()]
    return [
        file
        for file in files
        if LICENSE_FILE.fullmatch(file.rsplit("/", 1)[-1])
        and not NOT_PROSE.fullmatch(Path(file).suffix)
    ]
