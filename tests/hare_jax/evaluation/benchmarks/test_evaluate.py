"""Benchmarks end to end: tasks of lm-evaluation-harness on tiny data.

Its own Hugging Face backend is the oracle. Results are written, cached, and resumed after a kill.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hare_jax.config import (
    BenchmarkEvaluation,
    BenchmarkOptions,
    HuggingFaceImport,
    OfflineBenchmarkData,
    Protocol,
)
from hare_jax.evaluation.benchmarks import evaluate, lm_harness, offline_data
from hare_jax.evaluation.benchmarks.response_cache import ResponseCache, key_of
from hare_jax.inference.engine import InferenceEngine
from hare_jax.inference.tokenizers import HuggingFaceTokenizer
from hare_jax.interop import import_hf
from tests.builders import read_jsonl, write_jsonl

pytest.importorskip("lm_eval")
pytest.importorskip("safetensors")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

# Of the libraries that read tasks and of the oracle; ours are errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.usefixtures("own_datasets_cache"),
]

ANIMALS = ("hare", "fox", "owl", "toad", "heron", "badger", "otter", "stoat")
ROWS = [
    {
        "question": f"Which animal is number {i}, the {animal} or another one?",
        "choices": [f"the {animal}", "a stone", f"the {ANIMALS[(i + 3) % 8]} in the field"],
        "label": i % 3,
        "text": f"The {animal} is animal number {i}.\nIt runs through the field at night, {i}.",
    }
    for i, animal in enumerate(ANIMALS)
]
WriteTasks = Callable[[list[dict[str, Any]], dict[str, str]], Path]
TASKS = {
    "tiny_choices": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: label
num_fewshot: 2
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}
""",
    "tiny_letters": """
output_type: multiple_choice
doc_to_text: "{{question}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C"]
doc_to_target: label
num_fewshot: 2
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "tiny_last_word": """
output_type: loglikelihood
doc_to_text: "{{question.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + question.split(' ')[-1]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "tiny_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text * 8}}"
metric_list:
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
""",
    "tiny_open": """
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices[0]}}"
num_fewshot: 1
generation_kwargs: {until: ["\\n", "Question:", "th"], max_gen_toks: 24, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
}
MAX_LENGTH = 192


@pytest.fixture(scope="module")
def tasks(write_tasks: WriteTasks) -> Path:
    return write_tasks(ROWS, TASKS)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral of random weights with a tokenizer of its own, as transformers saves them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("mistral")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([row["question"] + str(row["text"]) for row in ROWS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=MAX_LENGTH,
        sliding_window=None,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    transformers.MistralForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def subject(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> evaluate.Subject:
    config = BenchmarkEvaluation(checkpoint=str(theirs))
    return evaluate.open_subject(config, tmp_path_factory.mktemp("imported"))


Ask = Callable[[Protocol], Any]


@pytest.fixture
def ask(subject: evaluate.Subject, tmp_path: Path) -> Ask:
    engine = InferenceEngine(
        subject.model, subject.params, max_length=MAX_LENGTH, batch_tokens=1024
    )

    def make(protocol: Protocol) -> Any:
        responses = ResponseCache(tmp_path / f"{protocol.value}.jsonl")
        return lm_harness.model(engine, subject.tokenizer, protocol, responses)

    return make


def samples_of(lm: Any, name: str, tasks: Path, protocol: Protocol = Protocol.CURRENT) -> Any:
    options = BenchmarkOptions(protocol=protocol, task_folders=(str(tasks),))
    (loaded,) = lm_harness.load([name], options)
    return lm_harness.evaluate(lm, loaded, options)["samples"][name]


@pytest.fixture(scope="module")
def backend(theirs: Path) -> Any:
    """lm-eval's own, which needs accelerate besides torch and transformers."""
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(theirs), device="cpu", dtype="float32", batch_size=2, max_length=MAX_LENGTH)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_answers_equal_those_of_the_hugging_face_backend(
    name: str, ask: Ask, backend: Any, tasks: Path
) -> None:
    ours, expected = (samples_of(lm, name, tasks) for lm in (ask(Protocol.CURRENT), backend))
    for one, other in zip(ours, expected, strict=True):
        assert one["arguments"] == other["arguments"]
        for (answer,), (their_answer,) in zip(one["resps"], other["resps"], strict=True):
            if isinstance(answer, tuple):
                assert answer[0] == pytest.approx(their_answer[0], abs=1e-4)
                assert answer[1] == their_answer[1]
            elif isinstance(answer, float):
                assert answer == pytest.approx(their_answer, abs=1e-3)  # of 400 tokens
            else:
                assert answer == their_answer and "th" not in answer


def test_answers_equal_those_of_transformers(ask: Ask, theirs: Path, tasks: Path) -> None:
    """The same without lm-eval's backend: choices scored one by one, completions token by token."""
    model = transformers.MistralForCausalLM.from_pretrained(theirs, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(theirs)
    for sample in samples_of(ask(Protocol.CURRENT), "tiny_choices", tasks):
        pairs = zip(sample["arguments"], sample["resps"], strict=True)
        for (context, continuation), ((log_likelihood, _),) in pairs:
            start = tokenizer.encode(context)
            whole = tokenizer.encode(context + continuation)[-MAX_LENGTH - 1 :]
            scored = len(tokenizer.encode(context + continuation)) - len(start)
            with torch.no_grad():
                logits = model(torch.tensor([whole[:-1]])).logits[0, -scored:]
            log_prob = torch.log_softmax(logits, -1)
            expected = log_prob[range(scored), whole[-scored:]].sum().item()
            assert log_likelihood == pytest.approx(expected, abs=1e-4)
    for sample in samples_of(ask(Protocol.CURRENT), "tiny_open", tasks):
        ((context, _),) = sample["arguments"]
        ids = torch.tensor([tokenizer.encode(context)[-(MAX_LENGTH - 24) :]])
        new = model.generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=1)
        text = tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
        for stop in ("\n", "Question:", "th"):
            text = text.split(stop)[0]
        assert sample["resps"][0][0] == text


def test_pairs_are_encoded_as_one_text(ask: Ask, theirs: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(theirs)
    lm, v1 = ask(Protocol.CURRENT), ask(Protocol.LEADERBOARD_V1)
    for context, continuation in (("The hare ", "runs"), ("Answer:", " a stone"), ("A\n\n", "B")):
        start, rest = lm._encode_pair(context, continuation)
        assert start == tokenizer.encode(context.rstrip())
        assert start + rest == tokenizer.encode(context + continuation)
        v1_start, v1_rest = v1._encode_pair(context, continuation)
        assert v1_start + v1_rest == (start + rest)[1:]  # no BOS
    assert lm.tok_encode("<s>hare") == tokenizer.encode("hare")  # BOS once
    assert (lm.prefix_token_id, v1.prefix_token_id) == (0, 1)


def test_the_leaderboards_examples_reach_the_prompts(ask: Ask, tasks: Path) -> None:
    from hare_jax.evaluation.benchmarks.protocols import drawn_examples

    drawn = drawn_examples(documents=3, pool=5, shots=2)
    samples = samples_of(
        ask(Protocol.LEADERBOARD_V1), "tiny_choices", tasks, Protocol.LEADERBOARD_V1
    )
    for sample in samples:
        examples = [ROWS[i] for i in drawn[sample["doc_id"]]]
        before = "".join(
            f"Question: {row['question']}\nAnswer: {row['choices'][row['label']]}\n\n"  # type: ignore[index]
            for row in examples
        )
        question = ROWS[5 + sample["doc_id"]]["question"]
        assert sample["arguments"][0][0] == f"{before}Question: {question}\nAnswer:"


def test_a_run_is_complete_and_served_again(
    theirs: Path, tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BenchmarkEvaluation(
        checkpoint=str(theirs),
        benchmarks=("tiny_choices", "tiny_open"),
        task_folders=(str(tasks),),
        max_length=MAX_LENGTH,
    )
    written = evaluate.run(config, tmp_path)
    result = json.loads(written["scores"].read_text("utf-8"))
    inputs = result["inputs"]
    assert inputs["protocol"] == "current" and inputs["lm_eval"] == lm_harness.version()
    assert (
        inputs["tokenizer"] == HuggingFaceTokenizer(theirs).sha256 and len(inputs["weights"]) == 64
    )
    row = result["benchmarks"]["tiny_choices"]
    assert row["score"] == row["metrics"]["tiny_choices"]["acc,none"]
    assert row["score"]["items"] == 3 and row["shots"] == 2
    assert row["decontamination"] == {"state": "unknown"} and result["average"] is None
    assert row["clean"]["state"] == "unknown"
    assert "| tiny_choices | tiny_open | settings |" in written["table"].read_text("utf-8")
    assert written["chart"].read_text("utf-8").startswith("<svg")
    lines = read_jsonl(next(tmp_path.glob("samples-*/tiny_choices.jsonl")))
    gold = [line["answers"][line["target"]][0] for line in lines]
    assert [line["gold_log_likelihood"] for line in lines] == gold
    assert row["gold_log_likelihood"]["value"] == pytest.approx(sum(gold) / 3)
    completions = result["benchmarks"]["tiny_open"]
    assert completions["bits_per_byte"]["value"] > 0  # the right answers were scored too
    before = written["scores"].read_bytes()
    capsys.readouterr()
    assert evaluate.run(config, tmp_path) == written
    assert "served from cache" in capsys.readouterr().out
    assert written["scores"].read_bytes() == before
    # Another protocol is another result.
    config.protocol = Protocol.LEADERBOARD_V1
    assert evaluate.run(config, tmp_path)["scores"] != written["scores"]


def test_items_that_cannot_be_scored_are_counted_and_end_nothing(
    theirs: Path, ask: Ask, write_tasks: WriteTasks, tmp_path: Path
) -> None:
    """A choice without a token, a metric that fails, a text longer than the model reads."""
    odd = [dict(row) for row in ROWS]
    odd[6]["choices"] = ["", "", ""]
    odd[7]["choices"] = ["an owl " * 200, "a", "b"]
    tasks = {name: TASKS[name] for name in ("tiny_choices", "tiny_open")}
    tasks["tiny_open"] = tasks["tiny_open"].replace("{{choices[0]}}", "{{choices}}")
    config = BenchmarkEvaluation(
        checkpoint=str(theirs),
        benchmarks=("tiny_choices", "tiny_open"),
        task_folders=(str(write_tasks(odd, tasks)),),
        shots=0,
        max_length=MAX_LENGTH,
    )
    result = json.loads(evaluate.run(config, tmp_path)["scores"].read_text("utf-8"))
    choices = result["benchmarks"]["tiny_choices"]
    assert choices["score"]["items"] == len(ROWS) - 5 - 2
    assert choices["failed"]["items"] == 2
    assert choices["failed"]["first"].startswith("tiny_choices, item 1: RuntimeWarning")
    (empty, is_greedy), (known, _) = ask(Protocol.CURRENT)._loglikelihood_tokens(
        [(None, [1], []), (None, [1], [5])]
    )
    assert math.isnan(empty) and not is_greedy and known < 0
    completions = result["benchmarks"]["tiny_open"]
    assert completions["score"]["items"] == len(ROWS) - 5  # the long answer is only not scored


def test_a_benchmark_without_any_score_leaves_the_others(
    theirs: Path, write_tasks: WriteTasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = [row | {"choices": ["an owl " * 200, "a", "b"]} for row in ROWS]
    tasks = {name: TASKS[name] for name in ("tiny_choices", "tiny_text")}
    config = BenchmarkEvaluation(
        checkpoint=str(theirs),
        benchmarks=("tiny_choices", "tiny_text"),
        task_folders=(str(write_tasks(none, tasks)),),
        shots=0,
        max_length=MAX_LENGTH,
    )
    result = json.loads(evaluate.run(config, tmp_path)["scores"].read_text("utf-8"))
    assert list(result["benchmarks"]) == ["tiny_text"]
    assert "none of the 3 items can be scored" in result["failed"]["tiny_choices"]
    config.benchmarks = ("tiny_choices",)
    with pytest.raises(ValueError, match="no benchmark has a score"):
        evaluate.run(config, tmp_path)


def test_a_killed_run_goes_on(
    theirs: Path, tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = BenchmarkEvaluation(
        checkpoint=str(theirs),
        benchmarks=("tiny_choices", "tiny_letters"),
        task_folders=(str(tasks),),
        max_length=MAX_LENGTH,
    )
    whole = evaluate.run(config, tmp_path / "whole")["scores"]

    asked: list[int] = []
    score = InferenceEngine.scores

    def dies(self: InferenceEngine, requests: Any, done: Any) -> Any:
        if asked:
            raise KeyboardInterrupt
        asked.append(len(requests))
        return score(self, requests, done)

    monkeypatch.setattr(InferenceEngine, "scores", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(config, tmp_path / "killed")

    def counts(self: InferenceEngine, requests: Any, done: Any) -> Any:
        asked.append(len(requests))
        return score(self, requests, done)

    monkeypatch.setattr(InferenceEngine, "scores", counts)
    again = evaluate.run(config, tmp_path / "killed")["scores"]
    assert asked[1] == 0 and asked[2] == 9  # nothing of the first task is asked again
    assert json.loads(again.read_text()) == json.loads(whole.read_text())


def test_a_response_that_breaks_off_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    ResponseCache(path).add({key_of("score", [1], [2]): [-1.5, True], "b": "text"})
    path.write_bytes(path.read_bytes() + b'["c", [-2.')
    responses = ResponseCache(path)
    assert responses.num_loaded == 2 and responses.get(key_of("score", [1], [2])) == [-1.5, True]
    assert responses.get(key_of("score", [1, 2], [])) is None
    responses.add({"c": 1})
    assert ResponseCache(path).get("c") == 1
    path.write_bytes(b"{\n" + path.read_bytes())
    with pytest.raises(ValueError, match=r"responses.jsonl:1: .*; remove the file"):
        ResponseCache(path)


def publish(source: Path) -> None:
    """ROWS as ARC was published: each split has all of them."""
    for name in ("arc_easy", "arc_challenge"):
        (source / name).mkdir(parents=True)
        for split in ("train", "test"):
            rows = [
                {
                    "id": f"{split}-{i}",
                    "question": {
                        "stem": row["question"],
                        "choices": [
                            {"text": text, "label": "ABC"[k]}
                            for k, text in enumerate(row["choices"])  # type: ignore[arg-type]
                        ],
                    },
                    "answerKey": "ABC"[row["label"]],  # type: ignore[index]
                }
                for i, row in enumerate(ROWS)
            ]
            write_jsonl(source / name / f"{split}.jsonl", rows)


def test_published_files_are_laid_out_for_the_official_tasks(ask: Ask, tmp_path: Path) -> None:
    source = tmp_path / "source"
    publish(source)
    out = tmp_path / "out"
    assert offline_data.run(OfflineBenchmarkData(str(source), str(out)), tmp_path) == {
        "benchmarks": out
    }
    layout = offline_data.read_layout(out)
    assert layout["arc_easy"]["rows"] == {"train": 8, "test": 8}
    assert layout["arc_easy"]["splits"] == {"train": "train.jsonl", "test": "test.jsonl"}
    (loaded,) = lm_harness.load(["arc_easy"], BenchmarkOptions(data=str(out)))
    assert [doc["id"] for doc in loaded.tasks["arc_easy"].eval_docs] == [
        f"test-{i}" for i in range(8)
    ]
    results = lm_harness.evaluate(ask(Protocol.CURRENT), loaded, BenchmarkOptions(limit=2))
    assert [sample["target"] for sample in results["samples"]["arc_easy"]] == [0, 1]
    named = [sample["doc"]["item"] for sample in results["samples"]["arc_easy"]]
    assert named == ["arc_easy/test/0", "arc_easy/test/1"]
    # The same names with other items, in another place or in this one, are other data.
    test = source / "arc_easy" / "test.jsonl"
    test.write_text("".join(test.read_text("utf-8").splitlines(keepends=True)[2:]), "utf-8")
    shutil.rmtree(out)
    for place in (tmp_path / "other", out):
        offline_data.run(OfflineBenchmarkData(str(source), str(place)), tmp_path)
        (loaded,) = lm_harness.load(["arc_easy"], BenchmarkOptions(data=str(place)))
        assert [doc["id"] for doc in loaded.tasks["arc_easy"].eval_docs] == [
            f"test-{i}" for i in range(2, 8)
        ]
    with pytest.raises(FileNotFoundError, match="Rowan/hellaswag: no such folder; write HellaSwag"):
        lm_harness.load(["hellaswag"], BenchmarkOptions(data=str(out)))
    with pytest.raises(ValueError, match="exists already; name a new folder"):
        offline_data.run(OfflineBenchmarkData(str(source), str(out)), tmp_path)


def test_without_examples_only_the_evaluated_split_is_needed(theirs: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    publish(source)
    shutil.rmtree(source / "arc_challenge")  # it has 25 examples
    (source / "arc_easy" / "train.jsonl").unlink()
    data = tmp_path / "data"
    offline_data.run(OfflineBenchmarkData(str(source), str(data)), tmp_path)
    assert offline_data.read_layout(data)["arc_easy"]["rows"] == {"test": 8}
    config = BenchmarkEvaluation(
        checkpoint=str(theirs), benchmarks=("arc_easy",), data=str(data), max_length=MAX_LENGTH
    )
    result = json.loads(evaluate.run(config, tmp_path / "work")["scores"].read_text("utf-8"))
    assert result["benchmarks"]["arc_easy"]["shots"] == 0
    assert result["benchmarks"]["arc_easy"]["score"]["items"] == 8
    # The requests are those of the folder that has the other splits too.
    publish(other := tmp_path / "complete")
    complete = tmp_path / "complete data"
    offline_data.run(OfflineBenchmarkData(str(other), str(complete)), tmp_path)
    config.data = str(complete)
    same = json.loads(evaluate.run(config, tmp_path / "work")["scores"].read_text("utf-8"))
    assert same["benchmarks"]["arc_easy"]["metrics"] == result["benchmarks"]["arc_easy"]["metrics"]


def test_a_missing_split_is_named(theirs: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    publish(source)
    (source / "arc_easy" / "test.jsonl").rename(source / "arc_easy" / "validation.jsonl")
    data = tmp_path / "data"
    offline_data.run(OfflineBenchmarkData(str(source), str(data)), tmp_path)
    (data / "allenai" / "ai2_arc" / "ARC-Challenge" / "train.jsonl").unlink()
    readme = data / "allenai" / "ai2_arc" / "README.md"
    lines = "  - split: train\n    path: ARC-Challenge/train.jsonl\n"
    readme.write_text(readme.read_text("utf-8").replace(lines, ""), encoding="utf-8")
    for name, split, shots in (
        ("arc_easy", "test", -1),
        ("arc_challenge", "train", -1),
        ("arc_challenge", "train", 2),
    ):
        config = BenchmarkEvaluation(
            checkpoint=str(theirs), benchmarks=(name,), data=str(data), shots=shots
        )
        with pytest.raises(ValueError, match=f"has no split or field '{split}', .*shots=0"):
            evaluate.run(config, tmp_path / "work")
    config.shots = 0
    result = json.loads(evaluate.run(config, tmp_path / "work")["scores"].read_text("utf-8"))
    assert result["benchmarks"]["arc_challenge"]["shots"] == 0


def test_a_source_without_examples_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    config = OfflineBenchmarkData(str(source), str(tmp_path / "out"))
    publish(source)
    (source / "arc_challenge" / "train.jsonl").unlink()
    message = "arc_challenge: no training file, .* more than 100 rows .*; add train{.jsonl,"
    with pytest.raises(FileNotFoundError, match=message):
        offline_data.run(config, tmp_path)
    test = source / "arc_challenge" / "test.jsonl"
    shutil.copyfile(test, source / "arc_challenge" / "validation.jsonl")  # too few rows
    with pytest.raises(FileNotFoundError, match=message):
        offline_data.run(config, tmp_path)
    test.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"arc_challenge/test.jsonl: no rows; "):
        offline_data.run(config, tmp_path)


def test_a_template_is_compiled_once(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval import utils

    (loaded,) = lm_harness.load(["tiny_choices"], BenchmarkOptions(task_folders=(str(tasks),)))
    task = loaded.tasks["tiny_choices"]
    first, second, *_ = task.eval_docs
    texts = [task.doc_to_text(first), task.doc_to_text(second)]
    compiled = []
    compile_one = utils.env.compile

    def counted(*arguments: Any, **named: Any) -> Any:
        compiled.append(arguments)
        return compile_one(*arguments, **named)

    monkeypatch.setattr(utils.env, "compile", counted)
    assert [task.doc_to_text(first), task.doc_to_text(second)] == texts
    assert texts[0] != texts[1]
    assert not compiled


def test_completions_without_room_are_refused_before_any_request(tasks: Path) -> None:
    def load(max_length: int) -> object:
        options = BenchmarkOptions(task_folders=(str(tasks),), max_length=max_length)
        return lm_harness.load(["tiny_open"], options)

    load(25)
    with pytest.raises(
        ValueError, match=r"tiny_open generates .* 24 tokens, but the model reads at most 24 "
    ):
        load(24)


def test_what_cannot_be_evaluated_is_refused_before_the_checkpoint_is_read(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "_load_subject", None)  # it must not get there
    monkeypatch.setattr(lm_harness, "hub_is_reachable", lambda: False)
    config = BenchmarkEvaluation(checkpoint=str(theirs))
    message = r"data of MMLU is not on this machine, .* configs/benchmarks.py, .* --config.data=DIR"
    with pytest.raises(ValueError, match=message):
        evaluate.run(config, tmp_path)
    for name in lm_harness.BENCHMARKS.values():
        (tmp_path / "data" / name.dataset).mkdir(parents=True, exist_ok=True)
    config.data = str(tmp_path / "data")
    config.max_length = 256
    message = (
        r"GSM8K generates completions of up to 256 tokens, .* --config.max_length=1024 .* or leave "
        r"gsm8k out \(configs/evaluate.py:mmlu,arc_challenge,truthfulqa,winogrande,hellaswag\)"
    )
    with pytest.raises(ValueError, match=message):
        evaluate.run(config, tmp_path)


def test_a_hub_that_refuses_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.error
    import urllib.request
    from email.message import Message

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    refusal = urllib.error.HTTPError("https://hub", 403, "Forbidden", Message(), None)
    for error, expected in ((refusal, True), (urllib.error.URLError("no such host"), False)):

        def fail(*arguments: Any, error: Exception = error, **named: Any) -> Any:
            raise error

        monkeypatch.setattr(urllib.request, "urlopen", fail)
        lm_harness.hub_is_reachable.cache_clear()
        assert lm_harness.hub_is_reachable() is expected
    lm_harness.hub_is_reachable.cache_clear()


def test_the_registry_has_the_length_of_completions() -> None:
    """Of the tasks of the registry, only GSM8K generates, as many tokens as lm-eval's default."""
    from lm_eval import tasks

    from hare_jax.evaluation.benchmarks.engine_lm import DEFAULT_NEW_TOKENS
    from hare_jax.evaluation.benchmarks.registry import BENCHMARKS

    text = (Path(tasks.__file__).parent / "gsm8k" / "gsm8k.yaml").read_text("utf-8")
    assert "output_type: generate_until" in text and "max_gen_toks" not in text
    generating = {name: b.max_new_tokens for name, b in BENCHMARKS.items() if b.max_new_tokens}
    assert generating == {"gsm8k": DEFAULT_NEW_TOKENS}


def test_items_that_documents_hold_are_scored_apart(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(tmp_path / "source")
    data, run_dir = tmp_path / "data", tmp_path / "run"
    offline_data.run(OfflineBenchmarkData(str(tmp_path / "source"), str(data)), tmp_path)
    import_hf.run(HuggingFaceImport(str(theirs), str(run_dir)), tmp_path)
    # The data that the model was trained on, as curation leaves it.
    sha256 = offline_data.read_layout(data)["arc_easy"]["files"]["test.jsonl"]
    index = {"stage": "index", "extra": [["arc_easy", [f"test.jsonl {sha256}"]]]}
    items = ("arc_easy/test/1", "arc_easy/test/6", "arc_easy/train/0")
    lines = [json.dumps({"benchmark": "arc_easy", "item": item}) + "\n" for item in items]
    listed = "contaminated/web-00000.jsonl"
    files = {listed: hashlib.sha256("".join(lines).encode()).hexdigest()}
    decontaminate = {"stage": "decontaminate", "inputs": {"index-1": ""}}
    decontaminate |= {"shards": [{"shard": "web-00000", "files": files}]}
    for folder, file, value in (
        ("mixture-1", "mixture.json", {"sources": [{"files": [{"file": "../bake-1/shards/a"}]}]}),
        ("bake-1", "manifest.json", {"inputs": {"decontaminate-1": "1"}}),
        ("index-1", "manifest.json", index),
        ("decontaminate-1", "manifest.json", decontaminate),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(json.dumps(value), encoding="utf-8")
    config_json = json.loads((run_dir / "config.json").read_text("utf-8"))
    config_json["mixture"] = {"directory": str(tmp_path / "mixture-1"), "fingerprint": "ab"}
    (run_dir / "config.json").write_text(json.dumps(config_json), encoding="utf-8")

    (tmp_path / "decontaminate-1" / "contaminated").mkdir()
    (tmp_path / "decontaminate-1" / listed).write_text("".join(lines), encoding="utf-8")

    config = BenchmarkEvaluation(
        checkpoint=str(run_dir),
        benchmarks=("arc_easy", "arc_challenge"),
        data=str(data),
        shots=0,
        max_length=MAX_LENGTH,
    )
    written = evaluate.run(config, tmp_path / "scores")
    result = json.loads(written["scores"].read_text("utf-8"))
    assert result["inputs"]["checked_by"] == ["decontaminate-1"]
    row = result["benchmarks"]["arc_easy"]
    (log,) = (tmp_path / "scores").glob("samples-*/arc_easy.jsonl")
    right = [json.loads(line)["acc_norm"] for line in log.read_text("utf-8").splitlines()]
    parts = row["clean"]
    assert parts["all"] == row["score"] and parts["all"]["items"] == 8
    assert parts["contaminated"]["value"] * 2 == right[1] + right[6]
    assert parts["clean"]["value"] * 6 == pytest.approx(sum(right) - right[1] - right[6])
    said = capsys.readouterr().out
    assert "; 2 of 8 items contaminated, clean items " in said
    # ARC-C was not among what decontamination had indexed.
    assert result["benchmarks"]["arc_challenge"]["clean"]["state"] == "unknown"
    assert "Clean items unknown for ARC-C: not all of the training data was compared" in said
    assert "clean items |" in written["table"].read_text("utf-8")


def test_mistakes_are_named(theirs: Path, tasks: Path, tmp_path: Path) -> None:
    config = BenchmarkEvaluation(checkpoint=str(theirs), benchmarks=())
    with pytest.raises(ValueError, match="benchmarks: got none"):
        evaluate.run(config, tmp_path)
    with pytest.raises(ValueError, match="checkpoint: got nothing"):
        evaluate.run(BenchmarkEvaluation(), tmp_path)
    with pytest.raises(FileNotFoundError, match="has no folder of a benchmark"):
        offline_data.run(OfflineBenchmarkData(str(tasks), str(tmp_path / "out")), tmp_path)
    with pytest.raises(ValueError, match="expected a source and a folder to write"):
        offline_data.run(OfflineBenchmarkData(), tmp_path)
    bad = tmp_path / "bad" / "gsm8k"
    bad.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no validation or test file"):
        offline_data.run(OfflineBenchmarkData(str(bad.parent), str(tmp_path / "out")), tmp_path)
    (bad.parent / "mmlu").mkdir()
    (bad.parent / "mmlu" / "test.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    (bad / "test.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"test.jsonl, row 0: not a row of MMLU"):
        offline_data.run(OfflineBenchmarkData(str(bad.parent), str(tmp_path / "out")), tmp_path)


def test_decontamination_is_read_from_the_mixtures_stages(tmp_path: Path) -> None:
    from hare_jax.evaluation.benchmarks import decontamination_status

    def write(folder: str, file: str, value: Any) -> None:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / file).write_text(json.dumps(value), encoding="utf-8")

    names = {"hellaswag": "hellaswag", "piqa": ""}
    baked = [{"files": [{"file": "../bake-1/shards/web-00000.array_record"}]}]
    write("mixture-1", "mixture.json", {"sources": baked})
    mixture = tmp_path / "mixture-1"
    assert decontamination_status.status_by_benchmark(
        decontamination_status.read_status(None), names
    )["hellaswag"] == {"state": "unknown"}
    assert decontamination_status.status_by_benchmark(
        decontamination_status.read_status(mixture), names
    )["hellaswag"] == {"state": "unknown"}
    write(
        "bake-1",
        "manifest.json",
        {"inputs": {"decontaminate-1": "1", "decontaminate_tasks-1": "2"}},
    )
    index = {"stage": "index", "extra": [["hellaswag", ["validation.jsonl 12ab"]]]}
    write("index-1", "manifest.json", index)
    checked = {"stage": "decontaminate", "inputs": {"index-1": "3"}}
    write("decontaminate-1", "manifest.json", checked)
    write("decontaminate_tasks-1", "manifest.json", checked | {"stage": "decontaminate_tasks"})
    assert decontamination_status.status_by_benchmark(
        decontamination_status.read_status(mixture), names
    ) == {
        "hellaswag": {"state": "decontaminated", "files": ["validation.jsonl 12ab"]},
        "piqa": {"state": "not decontaminated"},
    }
    checked = decontamination_status.read_status(mixture)
    assert checked is not None
    stages = [tmp_path / name for name in ("decontaminate-1", "decontaminate_tasks-1")]
    assert checked.stages == stages
    # One way into the mixture that was not checked is enough.
    write("decontaminate_tasks-1", "manifest.json", {"stage": "nlp_tasks", "inputs": {}})
    assert decontamination_status.status_by_benchmark(
        decontamination_status.read_status(mixture), names
    )["hellaswag"] == {"state": "not decontaminated"}
