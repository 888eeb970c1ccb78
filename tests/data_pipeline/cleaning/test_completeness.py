from __future__ import annotations

import sysconfig
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from data_pipeline.cleaning import completeness
from data_pipeline.cleaning.quality import Text

PROOF = r"""\begin{lemma}\label{lemma-finite} % \begin{comment} does not count
Let $X$ be a scheme. \begin{enumerate} \item It is finite. \end{enumerate}
\end{lemma}
\begin{proof}
By Lemma \ref{lemma-affine} we may assume that $X$ is affine.
\end{proof}"""

JAVA = """/** The area of a circle: it's { not } counted. */
public final class Circle {
    private static final char OPEN = '(';

    public static double area(double radius) {
        return Math.PI * radius * radius; // :-(
    }
}
"""

RST = """Hares
~~~~~

They rest in forms.

Food and drink
``````````````

Grass::

    eat("grass")
"""


@pytest.mark.parametrize(
    "text",
    [
        "Hares eat many plants. Their food in winter includes the following:",
        "To cook it you will need these things, such as:",
        "1. Wash the hands.\n2. Peel the carrots.\n3.",
        "Buy this:\n\n- bread\n- milk\n-",
    ],
)
def test_a_list_that_does_not_come(text: str) -> None:
    assert completeness.truncated_list(Text(text)) is not None
    assert completeness.truncated_list(Text(f"{text} bread and milk.")) is None


@pytest.mark.parametrize(
    "text",
    [
        "1. Wash the hands.\n2. Peel the carrots.",
        "It was the year\n\n1984.",
        "- a\n\n---",
        "Chapter 3.\n\nHe was born in 2.",  # no item 1
        "They live alone. " * 40 + "The reasons are as follows:",  # little is lost
        "She said: no.",
    ],
)
def test_complete_lists_are_kept(text: str) -> None:
    assert completeness.truncated_list(Text(text)) is None


def test_fences() -> None:
    code = "Run this:\n\n```python\nfor hare in hares:\n    hare.run()\n"
    assert completeness.open_fence(Text(code)) == {"open": "```python"}
    assert completeness.open_fence(Text(code + "```\n\nIt prints nothing.")) is None
    assert completeness.open_fence(Text("It runs. " * 200 + code)) is None  # little is lost
    nested = "````\n```\n````\n"
    assert completeness.open_fence(Text(nested)) is None
    assert completeness.open_fence(Text("```code``` in a line")) is None
    assert completeness.open_fence(Text(RST)) is None  # a heading is underlined


def test_environments() -> None:
    assert completeness.open_environment(Text(PROOF)) is None
    cut = PROOF[: PROOF.index(" is affine")]
    assert completeness.open_environment(Text(cut)) == {"open": r"\begin{proof}"}
    verbatim = r"\begin{verbatim} \begin{proof} \end{verbatim}"
    assert completeness.open_environment(Text(PROOF + verbatim)) is None
    assert completeness.open_environment(Text(verbatim + cut)) == {"open": r"\begin{proof}"}
    macros = r"\newenvironment{boxed}{\begin{center}}{\end{center}} \begin{center}"
    assert completeness.open_environment(Text(macros)) is None
    # lost in conversion, and the text goes on
    assert completeness.open_environment(Text(cut + " It is so. " * 400)) is None
    assert completeness.open_environment(Text(r"$x$ \end{proof} \begin{proof}")) is None


def test_tags() -> None:
    assert completeness.open_tag(Text('See <a href="https://a.or')) is not None
    assert completeness.open_tag(Text("It is <b>bold</")) is not None
    assert completeness.open_tag(Text("A page.\n<!-- to be continued")) is not None
    for whole in ('See <a href="x">it</a>.', "a < b", "<br>", "<!-- x --> y", "if x <y"):
        assert completeness.open_tag(Text(whole)) is None


def test_brackets_of_code() -> None:
    assert completeness.open_bracket(Text(JAVA)) is None
    assert completeness.open_bracket(Text(JAVA[: JAVA.index("// :-(")])) is not None
    python = 'def f(x):\n    """(((."""\n    return [x // 2, ")", # :(\n'
    assert completeness.open_bracket(Text(python)) is not None
    assert completeness.open_bracket(Text(python + "    ]\n")) is None
    assert completeness.open_bracket(Text(")))\n(")) is None  # no language that this reads


def test_real_files_are_kept_and_their_halves_flagged() -> None:
    """No module of the standard library and no page of the language reference breaks off."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::6]
    halves = 0
    for path in paths:
        code = path.read_text(encoding="utf-8").strip()
        assert completeness.open_bracket(Text(code)) is None, path.name
        # cut inside a call or a definition
        opening = code.find("(", len(code) // 2)
        halves += completeness.open_bracket(Text(code[: opening + 1])) is not None
    assert halves > 0.6 * len(paths) > 10  # the others were cut in a docstring
    rules = (
        completeness.truncated_list,
        completeness.open_fence,
        completeness.open_environment,
        completeness.open_tag,
    )
    for name in sorted(topics):
        text = Text(topics[name].strip())
        assert [rule.__name__ for rule in rules if rule(text)] == [], name
