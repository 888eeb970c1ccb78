"""Hooks of the documentation site: pages from the top folder, and links out of docs/.

The same Markdown is read in the repository and on the site. `README.md`, `CONTRIBUTING.md` and
`CHANGELOG.md` lie in the top folder, and pages link to source files. On the site, the three files
become pages, links to them point to these pages, and links to other files of the repository
become plain text: the site has no copy of the source. A link to a missing file fails the build.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# Fenced or inline code, which is kept as it is, or an inline link: [text](target).
LINK = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`)|(?<!!)\[(?P<text>(?:`[^`]*`|[^\]`])*)\]\((?P<target>[^)\s]+)\)"
    r"|!\[(?P<alt>[^\]]*)\]\((?P<image>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)


def on_files(files: Files, config: Any) -> Files:
    """Adds the files of the top folder as pages."""
    for source, page in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrites the links of one page for the site."""
    by_page = {name: source for source, name in PAGES.items()}
    uri = page.file.src_uri
    # Path of the Markdown file in the repository; links are relative to its folder.
    source = by_page.get(uri, f"docs/{uri}")

    def rewrite(match: re.Match[str]) -> str:
        if match["code"] is not None:
            return match[0]
        target = match["target"] or match["image"]
        if re.match(r"[a-z][a-z0-9+.-]*:|#", target):  # a URL, or a place on the same page
            return match[0]
        path, hash_mark, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if path in PAGES:
            path = f"docs/{PAGES[path]}"
        elif not (ROOT / path).exists():
            raise PluginError(f"{source}: the link {target!r} leads to a file that does not exist")
        elif not path.startswith("docs/"):
            return match["text"] or match["alt"] or ""
        relative = posixpath.relpath(path, posixpath.dirname(f"docs/{uri}"))
        if match["image"]:
            return f"![{match['alt']}]({relative})"
        return f"[{match['text']}]({relative}{hash_mark}{anchor})"

    return LINK.sub(rewrite, markdown)


def on_pre_build(config: Any) -> None:
    """Builds from the top folder, so that module paths are found from any working directory."""
    os.chdir(ROOT)
