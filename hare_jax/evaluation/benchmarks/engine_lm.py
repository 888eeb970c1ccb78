"""The model side of lm-evaluation-harness: its requests, answered by an InferenceEngine.

This module imports lm_eval (extra `eval`) and is imported only when a benchmark is evaluated. It
needs neither torch nor transformers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from hare_jax.config import Protocol
from hare_jax.evaluation.benchmarks import protocols
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache, key_of
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.generate import before_end
from hare_jax.inference.requests import Score, ScoreRequest
from hare_jax.inference.sampling import Sampling
from hare_jax.inference.tokenizers import Tokenizer

DEFAULT_NEW_TOKENS = 256  # of a completion, if the task does not limit it; lm-eval's own default
CACHED_CONTEXTS = 16
NO_SCORE = (math.nan, False)  # of a continuation that cannot be scored


class EngineLM(TemplateLM):
    """A language model of lm-evaluation-harness around an InferenceEngine."""

    def __init__(
        self,
        engine: InferenceEngine,
        tokenizer: Tokenizer,
        protocol: Protocol,
        responses: ResponseCache,
        advance: Callable[[int], None],
    ):
        """Connects an engine with lm-evaluation-harness.

        Args:
          engine: computes what `responses` does not have.
          tokenizer: of the model.
          protocol: whether texts begin with BOS, and what replaces an empty context.
          responses: earlier responses of this model; new ones are added.
          advance: called with the number of requests whenever some are finished, those found in
            `responses` included.
        """
        super().__init__()
        self._engine = engine
        self._tokenizer = tokenizer
        self._responses = responses
        self._advance = advance
        self._adds_bos = protocols.adds_bos(protocol, tokenizer.adds_bos)
        self._prefix_id = protocols.prefix_id(protocol, tokenizer.bos_id, tokenizer.eos_id)
        # The choices of an item follow the same context one after another.
        self._encode_context = functools.lru_cache(CACHED_CONTEXTS)(self.tok_encode)

    @property
    def eot_token_id(self) -> int:
        """The id of the end-of-text token."""
        return self._tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that replaces an empty context."""
        return self._prefix_id

    @property
    def tokenizer_name(self) -> str:
        """A name of the tokenizer for lm-eval's caches."""
        return self._tokenizer.sha256

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        """Encodes a text, with BOS if the protocol has one; a BOS in the text is not doubled.

        Args:
          string: the text.
          add_special_tokens: whether BOS is put before it; None: as the protocol has it.
        """
        tokenizer, bos_id = self._tokenizer, self._tokenizer.bos_id
        if bos_id is None:
            return tokenizer.encode(string)
        bos = tokenizer.special_token(bos_id)
        if add_special_tokens is None and string.startswith(bos):
            return [bos_id, *tokenizer.encode(string[len(bos) :])]
        adds_bos = self._adds_bos if add_special_tokens is None else add_special_tokens
        ids = tokenizer.encode(string)
        return [bos_id, *ids] if adds_bos else ids

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        # As in the base class; but a context is encoded once for all continuations after it.
        stripped = context.rstrip()
        context_ids = self._encode_context(stripped)
        all_ids = self.tok_encode(stripped + context[len(stripped) :] + continuation)
        return context_ids, all_ids[len(context_ids) :]

    # ---- Log-likelihoods

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Returns (log-likelihood in nats, whether it is greedy) per (context, continuation).

        The log-likelihood of a continuation that has no token, or more than the model reads, is
        NaN: its item fails, and no other.
        """
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        keys = [key_of("score", context, targets) for _, context, targets in requests]
        possible = [self._can_score(targets) for _, _, targets in requests]
        new = [i for i, k in enumerate(keys) if possible[i] and self._responses.get(k) is None]
        self._advance(len(requests) - len(new))

        def cache(scores: dict[int, Score]) -> None:
            self._responses.add(
                {keys[new[i]]: [s.log_likelihood, s.is_greedy] for i, s in scores.items()}
            )
            self._advance(len(scores))

        self._engine.scores([ScoreRequest(requests[i][1], requests[i][2]) for i in new], cache)
        return [
            tuple(self._responses.get(key)) if can_score else NO_SCORE
            for key, can_score in zip(keys, possible, strict=True)
        ]

    def _can_score(self, targets: Sequence[int]) -> bool:
        """Returns whether a continuation has a token, and not more than the model reads."""
        return 0 < len(targets) <= self._engine.max_length

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Returns the log-likelihood in nats of each text, read in windows if it is long."""
        windows: list[tuple[None, list[int], list[int]]] = []
        owners: list[int] = []  # the request of each window
        for number, request in enumerate(requests):
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._engine.max_length,
                context_len=1,
            ):
                windows.append((None, *make_disjoint_window(window)))
                owners.append(number)
        totals = [0.0] * len(requests)
        scores = self._loglikelihood_tokens(windows)
        for owner, (log_likelihood, _) in zip(owners, scores, strict=True):
            totals[owner] += log_likelihood
        return totals

    # ---- Completions

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the completion of each (context, settings), up to its first stop sequence."""
        texts: list[str] = [""] * len(requests)
        by_settings: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            by_settings.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        for settings_text, numbers in by_settings.items():
            contexts = [requests[n].args[0] for n in numbers]
            settings = normalize_gen_kwargs(requests[numbers[0]].args[1], DEFAULT_NEW_TOKENS)
            completions = self._generate(settings_text, contexts, dict(settings))
            for number, text in zip(numbers, completions, strict=True):
                texts[number] = text
        return texts

    def _generate(
        self, settings_text: str, contexts: list[str], settings: dict[str, Any]
    ) -> list[str]:
        """Completes contexts that have the same settings; `settings_text` is part of their keys."""
        eos_ids, eos = self._tokenizer.eos_ids, self._tokenizer.special_token(self.eot_token_id)
        stop_texts = handle_stop_sequences(settings["until"], eos)
        ends = frozenset(eos_ids)
        ids = [self.tok_encode(context) for context in contexts]
        # A sampled completion depends on its number as well.
        keys = [key_of(f"generate {settings_text} {n}", context) for n, context in enumerate(ids)]
        new = [i for i, key in enumerate(keys) if self._responses.get(key) is None]
        self._advance(len(ids) - len(new))

        def text_of(tokens: list[int]) -> str:
            return self._tokenizer.decode(before_end(tokens, eos_ids))

        def is_complete(tokens: list[int]) -> bool:
            text = text_of(tokens)
            return not ends.isdisjoint(tokens) or any(stop and stop in text for stop in stop_texts)

        def cache(number: int, tokens: list[int]) -> None:
            text = postprocess_generated_text(text_of(tokens), stop_texts, None)
            self._responses.add({keys[new[number]]: text})
            self._advance(1)

        self._engine.generate(
            [ids[i] for i in new],
            max_new_tokens=settings["max_gen_toks"],
            is_complete=is_complete,
            sampling=Sampling(
                temperature=float(settings["temperature"]) if settings.get("do_sample") else 0.0,
                top_k=int(settings.get("top_k") or 0),
                top_p=float(settings.get("top_p") or 1.0),
            ),
            done=cache,
        )
        return [self._responses.get(key) for key in keys]
