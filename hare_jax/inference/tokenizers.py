"""The tokenizer of a checkpoint: text to token ids and back.

Two formats are read: a SentencePiece model (`tokenizer.model`), which every run of this project
carries, and the `tokenizer.json` of an imported Hugging Face checkpoint, which the `tokenizers`
library reads without transformers or torch. A Hugging Face folder also decides which tokens are
added, whether texts begin with BOS, and which ids end a text. Truncation and padding, which a
tokenizer.json may have from the preparation of batches, are switched off.

    tokenizer = open_tokenizer(Path("runs/quickstart/training-0123456789ab"))
    tokenizer.decode(tokenizer.encode("Hares are fast."))      # "Hares are fast."
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import sentencepiece
import tokenizers

from hare_jax.training.run_dir import TOKENIZER

Encode = Callable[[str], list[int]]  # text -> token ids, without BOS
Decode = Callable[[list[int]], str]  # token ids -> text

# In the folder of an imported checkpoint: the small files of the Hugging Face original.
HUGGING_FACE_FOLDER = "huggingface"
# Files of a Hugging Face folder that decide ids besides tokenizer.json, where they exist.
SETTINGS_FILES = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
CACHED_LINES, CACHED_LINE_LENGTH = 4096, 1000  # lines, characters


class Tokenizer(Protocol):
    """A tokenizer of any format.

    Attributes:
      path: the file that was read.
      bos_id: the id of the beginning-of-text token, or None if there is none.
      eos_id: the id of the end-of-text token.
      eos_ids: all ids that end a completion, `eos_id` first.
      adds_bos: whether texts begin with BOS unless a caller decides otherwise.
      vocab_size: the highest id + 1.
      sha256: of all that decides the ids, in hexadecimal.
    """

    path: Path
    bos_id: int | None
    eos_id: int
    eos_ids: tuple[int, ...]
    adds_bos: bool
    vocab_size: int
    sha256: str

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without BOS and EOS."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special tokens are left out."""

    def special_token(self, token_id: int) -> str:
        """Returns the text form of a special id, such as "<s>"."""


class SentencePieceTokenizer:
    """A SentencePiece model; see `Tokenizer` for the attributes.

    >>> SentencePieceTokenizer(Path("tokenizer.model")).encode("Hares are fast.")  # doctest: +SKIP
    [382, 4585, 460, 4102, 28723]
    """

    adds_bos = True  # every training document begins with BOS

    def __init__(self, path: Path, eos_ids: Sequence[int] = ()):
        """Reads the model at `path`.

        Args:
          path: of the file.
          eos_ids: further ids that end a completion.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file is not a SentencePiece model, or has no <s> or </s>.
        """
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file; put the SentencePiece model that the data was baked with "
                "there"
            )
        self.path = path
        self._model = path.read_bytes()
        self.sha256 = hashlib.sha256(self._model).hexdigest()
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._model)
        except RuntimeError as error:
            raise ValueError(f"{path} is not a SentencePiece model ({error})") from None
        self.vocab_size: int = self._processor.vocab_size()
        self.bos_id: int | None = self._processor.bos_id()
        self.eos_id: int = self._processor.eos_id()
        if min(self._processor.bos_id(), self.eos_id) < 0:
            raise ValueError(
                f"{path} has begin and end ids {self.bos_id} and {self.eos_id}; expected a model "
                "with both, since they separate documents"
            )
        self.eos_ids = tuple(dict.fromkeys((self.eos_id, *eos_ids)))

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without BOS and EOS.

        If the vocabulary allows it, lines are encoded one by one and cached: the few-shot prompts
        of a benchmark share most of their lines.
        """
        if not text or not self._lines_are_independent:
            return self._processor.encode(text)
        first, *others = text.split("\n")
        # SentencePiece puts a space before a text; the processor for lines does not.
        ids = list(self._encode_line(" " + first))
        for line in others:
            ids += self._newline_ids
            ids += self._encode_line(line)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; SentencePiece leaves out <s> and </s>.

        Ids of a padded vocabulary, which have no piece, have no text.
        """
        return self._processor.decode([int(i) for i in ids if i < self.vocab_size])

    def special_token(self, token_id: int) -> str:
        """Returns "<s>" or "</s>"."""
        return {self.bos_id: "<s>", self.eos_id: "</s>"}[token_id]

    @cached_property
    def _lines_are_independent(self) -> bool:
        """True if the ids of a text are those of its lines, joined by those of the newline.

        BPE merges neighboring characters only into pieces of the vocabulary. If no piece contains
        a newline, no merge crosses one. Unigram models weigh whole segmentations: False.
        """
        proto = parse_sentencepiece(self._model, self.path)
        is_plain = not any(deviations_from_plain_bpe(proto))
        return is_plain and not any("\n" in piece.piece for piece in proto.pieces)

    @cached_property
    def _line_processor(self) -> sentencepiece.SentencePieceProcessor:
        """The same model, without the space before a text."""
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(self._model)
        processor.override_normalizer_spec(add_dummy_prefix=False)
        return processor

    @cached_property
    def _newline_ids(self) -> list[int]:
        return self._line_processor.encode("\n")

    @cached_property
    def _encode_line(self) -> Callable[[str], list[int]]:
        encode = self._line_processor.encode
        cached = lru_cache(CACHED_LINES)(encode)
        return lambda line: cached(line) if len(line) <= CACHED_LINE_LENGTH else encode(line)


class HuggingFaceTokenizer:
    """The tokenizer.json of a Hugging Face folder; see `Tokenizer` for the attributes.

    Its special tokens are named in tokenizer_config.json, special_tokens_map.json,
    generation_config.json or config.json.
    """

    def __init__(self, folder: Path):
        """Reads the tokenizer of `folder`.

        Raises:
          FileNotFoundError: the folder has no tokenizer.json.
          ValueError: no end-of-text token is named, or a file contradicts tokenizer.json.
        """
        self.path = folder / "tokenizer.json"
        if not self.path.is_file():
            raise FileNotFoundError(
                f"{self.path}: no such file; expected a tokenizer of Hugging Face"
            )
        content = self.path.read_bytes()
        self.json: dict[str, Any] = json.loads(content)
        self._tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
        # Left on by whoever prepared batches with it; both would change the ids of every text.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.settings = _read_json(folder / "special_tokens_map.json")
        self.settings |= _read_json(folder / "tokenizer_config.json")
        self._add_tokens(folder)
        # "<s>" inside a text is text, and not the token.
        self._tokenizer.encode_special_tokens = bool(self.settings.get("split_special_tokens"))
        self.vocab_size: int = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        model, generation = _read_json(folder / "config.json"), _generation_config(folder)
        self.bos_id = self._special_id("bos_token", model, generation)
        eos_id = self._special_id("eos_token", model, generation)
        if eos_id is None:
            raise ValueError(
                f"{folder}: tokenizer_config.json and config.json name no end-of-text token"
            )
        self.eos_id = eos_id
        self.eos_ids = tuple(dict.fromkeys((eos_id, *_end_ids(folder))))
        first_ids = self._tokenizer.encode("a").ids[:1]
        adds_bos = self.settings.get("add_bos_token")
        if not isinstance(adds_bos, bool):
            adds_bos = first_ids == [self.bos_id]
        self.adds_bos = self.bos_id is not None and adds_bos
        settings = [_read_json(folder / name) for name in SETTINGS_FILES]
        deciding = [hashlib.sha256(content).hexdigest(), settings, self.bos_id, self.eos_ids]
        self.sha256 = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of `text`, without BOS and EOS."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids`; special tokens are left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def special_token(self, token_id: int) -> str:
        """Returns the text form of a special id, such as "<s>"; "" if the id is unknown."""
        return self._tokenizer.id_to_token(token_id) or ""

    def added_tokens(self) -> dict[int, tokenizers.AddedToken]:
        """Returns id -> token that is never split, of tokenizer.json and beside it."""
        return dict(sorted(self._tokenizer.get_added_tokens_decoder().items()))

    def _add_tokens(self, folder: Path) -> None:
        """Adds the tokens that only tokenizer_config.json or added_tokens.json has."""
        described = self.settings.get("added_tokens_decoder", {})
        named = {int(i): tokenizers.AddedToken(**_token(token)) for i, token in described.items()}
        for text, token_id in _read_json(folder / "added_tokens.json").items():
            named.setdefault(token_id, tokenizers.AddedToken(text, normalized=False))
        for token_id, token in sorted(named.items()):
            if self._tokenizer.token_to_id(token.content) is None:
                self._tokenizer.add_tokens([token])
            if (got := self._tokenizer.token_to_id(token.content)) != token_id:
                raise ValueError(
                    f"{self.path}: {token.content!r} has the id {got}, expected {token_id} as in "
                    "tokenizer_config.json or added_tokens.json; the files are of different "
                    "tokenizers"
                )

    def _special_id(self, role: str, *configs: Mapping[str, Any]) -> int | None:
        """Returns the id of "bos_token" or "eos_token".

        The tokenizer's own files decide, and say by null that there is none. Only if they do not
        mention it, it is the first id that one of the model's files has.
        """
        if role in self.settings:
            token = self.settings[role]
            text = token.get("content") if isinstance(token, dict) else token
            if text is not None:
                return self._tokenizer.token_to_id(text)
            if role == "bos_token":
                return None
        return next((ids[0] for config in configs if (ids := _ids(config.get(f"{role}_id")))), None)


def open_tokenizer(folder: Path) -> Tokenizer:
    """Opens the tokenizer of a run's folder, or of an imported checkpoint.

    Raises:
      FileNotFoundError: the folder has no tokenizer.
      ValueError: its tokenizer cannot be used.
    """
    original = folder / HUGGING_FACE_FOLDER
    for candidate in (original, folder):
        if (candidate / "tokenizer.json").is_file():
            return HuggingFaceTokenizer(candidate)
    return SentencePieceTokenizer(folder / TOKENIZER, _end_ids(original))


def open_fitting(folder: Path, vocab_size: int) -> Tokenizer:
    """Opens the tokenizer in `folder` of a model with `vocab_size` rows.

    Raises the errors of `open_tokenizer`, and ValueError if an id has no row.
    """
    tokenizer = open_tokenizer(folder)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces, the model vocab_size="
            f"{vocab_size}; put the tokenizer that the model was trained with there"
        )
    return tokenizer


def beginning(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids that a text of this tokenizer begins with: BOS, or nothing."""
    return [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []


def parse_sentencepiece(model: bytes, path: Path) -> Any:
    """Parses the bytes of a SentencePiece model as the protocol buffer `ModelProto`.

    `path` is named in errors. Raises ValueError if the bytes are not such a model.
    """
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(model)
    except Exception as error:  # the class depends on the backend of protobuf
        raise ValueError(f"{path} is not a SentencePiece model: {error}") from error
    return proto


def deviations_from_plain_bpe(proto: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields (setting, got, expected) for each setting that differs from Llama and Mistral models.

    Those are BPE with byte fallback, without normalization, and with a space before a text.
    """
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    for setting, got, expected in (
        ("model_type", trainer.model_type, trainer.BPE),
        ("byte_fallback", trainer.byte_fallback, True),
        ("treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix, False),
        ("precompiled_charsmap", normalizer.precompiled_charsmap, b""),
        ("remove_extra_whitespaces", normalizer.remove_extra_whitespaces, False),
        ("add_dummy_prefix", normalizer.add_dummy_prefix, True),
        ("escape_whitespaces", normalizer.escape_whitespaces, True),
    ):
        if got != expected:
            yield setting, got, expected


def _token(described: Any) -> dict[str, Any]:
    """Returns the arguments of AddedToken of an entry of "added_tokens_decoder"."""
    fields = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {name: described[name] for name in fields if name in described}


def _generation_config(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "generation_config.json")


def _end_ids(folder: Path) -> list[int]:
    """Returns the ids that end a completion by the files of the model, as transformers has them.

    generation_config.json replaces config.json if it names any.
    """
    for config in (_generation_config(folder), _read_json(folder / "config.json")):
        if ids := _ids(config.get("eos_token_id")):
            return ids
    return []


def _ids(value: Any) -> list[int]:
    """Returns the ids of a field that has one, several or none."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file, or {} if there is no such file."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
