"""The installation that runs this test, a made-up one, and one with nothing in it."""

import doctest
import os
import sys
from pathlib import Path

import pytest

from data_pipeline.config import Reader, Source
from data_pipeline.reading.demo import python_installation
from data_pipeline.reading.demo.python_installation import docstrings, list_items, read
from data_pipeline.storage.document import BadInput, Document

READERS = [reader for reader in Reader if reader.value.startswith("python_")]


@pytest.fixture(autouse=True)
def forget_what_was_listed():
    cached = [f for f in vars(python_installation).values() if hasattr(f, "cache_clear")]
    assert len(cached) >= 4
    yield
    for function in cached:
        function.cache_clear()


def texts(reader: Reader, most: int = 10**9) -> dict[str, str]:
    names = [name for name, _, _ in list_items(reader)][:most]
    documents = list(read(reader, names, Source("s", category="c")))
    assert all(isinstance(document, Document) for document in documents)
    return {document.id: document.text for document in documents}


@pytest.mark.parametrize("reader", READERS)
def test_the_running_installation(reader):
    listed = list_items(reader)
    names = [name for name, _, _ in listed]
    assert names == sorted(set(names))
    assert len(names) > 20
    found = texts(reader, most=60)
    assert list(found) == [f"s/{name}" for name in names if f"s/{name}" in found]
    assert all(text.strip() for text in found.values())


@pytest.mark.parametrize("reader", READERS)
def test_documents_do_not_contain_installation_paths(reader):
    listed = list_items(reader)
    here = {sys.prefix, sys.base_prefix, str(Path.home()), os.sep + "site-packages"} - {"/", "/usr"}
    for document in read(reader, [name for name, _, _ in listed][::5], Source("s")):
        assert isinstance(document, Document)
        shown = f"{document.id} {document.meta}"
        assert not any(path in shown for path in here), document.id


def test_well_known_members():
    assert "yield" in texts(Reader.PYTHON_REFERENCE)["s/yield"]
    assert "class JSONDecoder" in texts(Reader.PYTHON_CODE)["s/json/decoder.py"]
    (decoder,) = read(Reader.PYTHON_DOCSTRINGS, ["json.decoder"], Source("s"))
    assert isinstance(decoder, Document)
    assert decoder.text.startswith("# json.decoder\n\nImplementation of JSONDecoder\n\n## json.")
    assert "\n\n## json.decoder.JSONDecoder.raw_decode\n\n" in decoder.text
    assert any("pytest" in text for text in texts(Reader.PYTHON_READMES).values())
    licenses = texts(Reader.PYTHON_LICENSES).values()
    assert any("PYTHON SOFTWARE FOUNDATION LICENSE" in text for text in licenses)


def test_tests_and_installed_packages_are_no_standard_library():
    names = [name for name, _, _ in list_items(Reader.PYTHON_CODE)]
    assert not [
        n for n in names if {"test", "tests", "site-packages", "lib2to3"} & set(n.split("/"))
    ]
    assert not [name for name in names if name.startswith(("_sysconfigdata", "config-"))]
    assert not [name for name in names if not name.endswith(".py")]


def test_a_module_is_parsed_and_not_imported(tmp_path, monkeypatch):
    library = fake_library(tmp_path, monkeypatch)
    (library / "bomb.py").write_text('"""Never run."""\nraise SystemExit("it was imported")\n')
    assert texts(Reader.PYTHON_DOCSTRINGS)["s/bomb"] == "# bomb\n\nNever run."


def fake_library(tmp_path, monkeypatch) -> Path:
    library = tmp_path / "lib" / "python3"
    (library / "json").mkdir(parents=True)
    (library / "ast.py").write_text('"""Trees."""\n')
    (library / "json" / "__init__.py").write_text('"""JSON."""\n')
    (library / "json" / "empty.py").write_text("")
    monkeypatch.setattr(python_installation, "_library", lambda: library)
    return library


def test_library_files_are_listed(tmp_path, monkeypatch):
    library = fake_library(tmp_path, monkeypatch)
    for skipped in ("test/a.py", "site-packages/b.py", "__pycache__/c.py", "config-3/d.py"):
        (library / skipped).parent.mkdir()
        (library / skipped).write_text('"""Skipped."""')
    (library / "_sysconfigdata__linux.py").write_text("build = 1")
    (library / "data.txt").write_text("no Python")
    assert [name for name, _, _ in list_items(Reader.PYTHON_CODE)] == ["ast.py", "json/__init__.py"]
    assert [name for name, _, _ in list_items(Reader.PYTHON_DOCSTRINGS)] == ["ast", "json"]


def test_modules_that_do_not_parse_or_decode_are_named(tmp_path, monkeypatch):
    library = fake_library(tmp_path, monkeypatch)
    (library / "broken.py").write_text("def (:")
    (library / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n'''caf\xe9'''\n")
    (library / "silent.py").write_text("x = 1\n")
    names = ["ast", "broken", "latin", "silent"]
    first, bad, latin = read(Reader.PYTHON_DOCSTRINGS, names, Source("s"))
    assert (bad.reason, bad.file, bad.raw) == ("invalid_python", "broken.py", b"def (:")
    assert [first.text, latin.text] == ["# ast\n\nTrees.", "# latin\n\ncafé"]
    list_items(Reader.PYTHON_CODE)
    (bad,) = read(Reader.PYTHON_CODE, ["latin.py"], Source("s"))
    assert isinstance(bad, BadInput)
    assert (bad.reason, bad.file) == ("invalid_utf8", "latin.py")


def test_an_installation_without_sources_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(python_installation, "_library", lambda: tmp_path)
    for reader in (Reader.PYTHON_CODE, Reader.PYTHON_DOCSTRINGS):
        with pytest.raises(
            ValueError, match=r"comes without the source files .* remove the source"
        ):
            list_items(reader)
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="comes without the language reference"):
        list_items(Reader.PYTHON_REFERENCE)


def install(site: Path, name: str, version: str, files: dict[str, str], readme: str = "") -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    fields = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
    (info / "METADATA").write_text(f"{fields}\n{readme}")
    for file, text in files.items():
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(text)
    (info / "RECORD").write_text(
        "".join(f"{file},,\n" for file in [*files, f"{info.name}/METADATA"])
    )


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    return tmp_path


def test_read_me_texts(site):
    install(site / "second", "Hare-Run", "2.0", {}, "# Hares\n\nThey run.\n")
    install(site / "second", "no-readme", "1.0", {})
    install(site / "second", "old", "1.0", {}, "UNKNOWN")
    install(site / "first", "hare_run", "3.0", {}, "The one that is imported.\n")
    assert texts(Reader.PYTHON_READMES) == {"s/hare_run-3.0": "The one that is imported.\n"}
    (document,) = read(Reader.PYTHON_READMES, ["hare_run-3.0"], Source("s"))
    assert document.meta == {"file": "hare_run-3.0", "license": "MIT"}
    assert document.category == "s"


def test_license_texts(site):
    wanted = [
        "LICENSE",
        "LICENCE.txt",
        "NOTICE.md",
        "COPYING",
        "LICENSE-MIT",
        "XSIMD_LICENSE",
        "license.rst",
    ]
    others = [
        "license.py",
        "notices.json",
        "driving_license.yaml",
        "lice.txt",
        "README.md",
        "unlicensed",
    ]
    folder = "hare_run-1.0.dist-info/licenses/"
    files = {f"{folder}{name}": f"text of {name}" for name in wanted + others}
    install(
        site / "first",
        "hare-run",
        "1.0",
        files | {"hare/LICENSE": "inside", "b/LICENSE": "", "hare/LICENSE-GONE": "x"},
    )
    (site / "first" / "hare/LICENSE-GONE").unlink()
    found = texts(Reader.PYTHON_LICENSES)
    own = {key: text for key, text in found.items() if not key.startswith("s/python-")}
    assert own == {f"s/hare-run-1.0/licenses/{name}": f"text of {name}" for name in wanted} | {
        "s/hare-run-1.0/hare/LICENSE": "inside"
    }


def test_docstrings_come_in_source_order_with_their_names():
    code = b'''
"""Module."""
if True:
    class A:
        """Class."""
        async def method(self):
            """Method,

            in two paragraphs."""
            def inner(): "Inner."
        x = 1
        """no docstring"""
else:
    try:
        def f(): r"""\\d stays"""
    except ImportError:
        def g(): "In a handler."
def undocumented(): pass
'''
    assert docstrings(code, "m").split("\n\n") == [
        "# m",
        "Module.",
        "## m.A",
        "Class.",
        "## m.A.method",
        "Method,",
        "in two paragraphs.",
        "## m.A.method.inner",
        "Inner.",
        "## m.f",
        "\\d stays",
        "## m.g",
        "In a handler.",
    ]


def test_invalid_escapes_in_a_library_are_not_reported_here():
    assert docstrings(b"'''a'''\nx = '\\d'\n", "m") == "# m\n\na"


def test_examples_in_docstrings():
    assert doctest.testmod(python_installation).failed == 0
