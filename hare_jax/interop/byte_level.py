"""The byte-level BPE of a tokenizer.json, as GGUF has it: SmolLM, GPT-2 and Llama 3.

llama.cpp knows pre-tokenizers by name and not by their rules. Those whose rules it is known to
reproduce are in PRE_TOKENIZERS; every other one is refused, since text would get other ids.
"""

from __future__ import annotations

from typing import Any

from hare_jax.inference.tokenizers import HuggingFaceTokenizer
from hare_jax.interop.vocabulary import PieceKind, Vocabulary

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Steps of a pre-tokenizer, see `_steps` -> its name in GGUF.
PRE_TOKENIZERS = {
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", _LLAMA_3), ("ByteLevel", False)): "llama-bpe",
}
# Fields of the model that change ids, with the values that llama.cpp has.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "type": ("BPE",),
    "dropout": (None, 0, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (None, False),
}


def read(tokenizer: HuggingFaceTokenizer) -> Vocabulary:
    """Returns the pieces of a tokenizer.json to which llama.cpp gives the same ids.

    Raises ValueError if it is not such a byte-level BPE.
    """
    content, path = tokenizer.json, tokenizer.path
    model = content["model"]
    for name, plain in _PLAIN.items():
        if model.get(name) not in plain:
            raise _refusal(f"{path}: model.{name} is {model.get(name)!r}, expected {plain[0]!r}")
    pre = PRE_TOKENIZERS.get(_steps(content.get("pre_tokenizer")))
    if pre is None or content.get("normalizer") is not None:
        raise _refusal(
            f"{path}: got normalizer {content.get('normalizer')} and pre_tokenizer "
            f"{content.get('pre_tokenizer')}, expected no normalizer and that of one of "
            f"{', '.join(sorted(PRE_TOKENIZERS.values()))}"
        )
    if bool(model.get("ignore_merges")) != (pre == "llama-bpe"):
        raise _refusal(f"{path}: model.ignore_merges is {model.get('ignore_merges')} with {pre}")
    size = tokenizer.vocab_size
    pieces, kinds = [f"[PAD{i}]" for i in range(size)], [PieceKind.UNUSED] * size
    for piece, i in model["vocab"].items():
        pieces[i], kinds[i] = piece, PieceKind.NORMAL
    for i, token in tokenizer.added_tokens().items():
        pieces[i] = token.content
        kinds[i] = PieceKind.CONTROL if token.special else PieceKind.USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return Vocabulary(
        path=path,
        pieces=pieces,
        scores=[0.0] * size,
        kinds=kinds,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        unk_id=None,
        merges=merges,
        pre_tokenizer=pre,
    )


def _steps(pre_tokenizer: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    """Returns the kind of each step and what it depends on; () for a step of unknown settings."""
    if pre_tokenizer is None:
        return ()
    steps: list[tuple[str, Any]] = []
    for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer]):
        match step:
            case {"type": "ByteLevel", "add_prefix_space": False}:
                steps.append(("ByteLevel", step.get("use_regex", True)))
            case {"type": "Digits", "individual_digits": bool(individual)}:
                steps.append(("Digits", individual))
            case {
                "type": "Split",
                "pattern": {"Regex": str(pattern)},
                "behavior": "Isolated",
                "invert": False,
            }:
                steps.append(("Split", pattern))
            case _:
                return ()
    return tuple(steps)


def _refusal(found: str) -> ValueError:
    return ValueError(
        f"{found}: llama.cpp would give other ids; export to Hugging Face instead, and use "
        "llama.cpp's convert_hf_to_gguf.py"
    )
