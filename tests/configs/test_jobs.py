"""Every type of config has a job with one signature, and a missing extra is named in one line."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from configs import command_line, jobs, quickstart
from configs.overrides import set_field
from hare_jax.config import OnFault
from tests.builders import ROOT

PAGES = sorted(
    path.stem
    for path in (ROOT / "configs").glob("*.py")
    if "def get_config(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("config_type", jobs.JOBS, ids=lambda one: one.__name__)
def test_each_job_takes_a_config_and_a_workdir(config_type: type) -> None:
    job: Any = jobs.JOBS[config_type]
    if isinstance(job, str):
        job = importlib.import_module(job).run
    assert list(inspect.signature(job).parameters) == ["config", "workdir"]
    hints = get_type_hints(job)
    assert hints == {"config": config_type, "workdir": Path, "return": dict[str, Path]}


@pytest.mark.parametrize("page", PAGES)
def test_each_page_returns_the_config_of_a_job(page: str) -> None:
    module = importlib.import_module(f"configs.{page}")
    assert get_type_hints(module.get_config)["return"] in jobs.JOBS


def test_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the config returns dict; expected Experiment, or"):
        jobs.run({}, tmp_path)


@pytest.mark.parametrize(
    ("page", "override", "message"),
    [
        ("quickstart.py", "mixture=DIR", "add --config.data=None to train on that mixture instead"),
        ("quickstart.py", "data=None", "config.mixture: got '', expected a folder of baked data"),
        ("quickstart.py", "distributed.timeout=0", "distributed.timeout: got 0, expected 1 or mor"),
        ("aot.py:cpu", "sequence_length=0", "config.sequence_length: got 0, expected 1 or more"),
        ("aot.py:cpu", "training.optimizer.clip_norm=0", "clip_norm: got 0.0, expected above 0"),
        ("export_hf.py", "shard_gb=0", "config.shard_gb: got 0.0, expected above 0"),
        ("generate.py", "max_tokens=0", "config.max_tokens: got 0, expected 1 or more"),
        ("audit.py", "max_items=-3", "config.max_items: got -3, expected 0 or more"),
    ],
)
def test_every_job_refuses_settings_before_any_work(
    page: str, override: str, message: str, tmp_path: Path
) -> None:
    config = copy.deepcopy(command_line._load(f"configs/{page}"))
    field, _, value = override.partition("=")
    set_field(config, field.split("."), [value])
    with pytest.raises(ValueError, match=re.escape(message)):
        jobs.run(config, tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_of_training_are_refused_before_curation(tmp_path: Path) -> None:
    config = quickstart.get_config()
    config.training.faults.not_finite = OnFault.IGNORE
    config.training.faults.spike_window = 8
    config.training.checkpointing.keep_every = config.training.checkpointing.every_steps + 1
    with pytest.raises(ValueError, match="3 settings cannot be used") as error:
        jobs.run(config, tmp_path)
    assert [line.split(":")[0] for line in str(error.value).splitlines()[1:]] == [
        "  config.training.faults.not_finite",
        "  config.training.faults.spike_warmup",
        "  config.training.checkpointing.keep_every",
    ]
    assert not any(tmp_path.iterdir())


def test_each_library_of_an_extra_is_known() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    modules: dict[str, set[str]] = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_normalized(distribution), set()).add(module)
    for extra in ("data", "beam", "hub", "remote", "export", "eval"):
        for requirement in extras[extra]:
            name = _normalized(re.split(r"[\[<>=;!~ ]", requirement)[0])
            if name in ("protobuf", "protobuf<7"):
                continue  # a limit of its version; other libraries need it too
            assert modules.get(name), f"{name} is not installed"
            named = {jobs.EXTRAS.get(module) for module in modules[name]} - {None}
            assert named, f"{requirement} of {extra}: none of {modules[name]} in jobs.EXTRAS"


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("gguf", ["--config=configs/export_gguf.py:x"], "pip install -e '.[export]'"),
        ("safetensors", ["--config=configs/import_hf.py:{hf}", "--config.out={out}"], "[export]"),
        ("orjson", ["--config=configs/quickstart.py", "--workdir={out}"], "[data]"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(
    module: str, arguments: list[str], expected: str, tmp_path: Path
) -> None:
    hf = tmp_path / "hf"
    hf.mkdir()
    (hf / "config.json").write_text(
        '{"model_type": "mistral", "vocab_size": 8, "num_hidden_layers": 1, "hidden_size": 8,'
        ' "intermediate_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1,'
        ' "sliding_window": null}'
    )
    (hf / "model.safetensors").touch()
    given = [argument.format(hf=hf, out=tmp_path / "out") for argument in arguments]
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "import main; from absl import app; app.run(main.main, flags_parser=main.parse)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and done.stderr.strip().count("\n") == 0, done.stderr
    assert f"{module} is not installed" in done.stderr and expected in done.stderr


def test_a_job_without_a_workdir_creates_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), f"--config={ROOT}/configs/generate.py:{tmp_path}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2 and "got no folder with config.json" in done.stderr
    assert list(tmp_path.iterdir()) == []
