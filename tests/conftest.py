"""Real parts for the tests: tiny models with random weights and tiny trained tokenizers, made in a temporary folder."""

import contextlib
import filecmp
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

# Nothing in these tests may depend on a network, or on what a user has from one.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
if "PYTEST_XDIST_WORKER" not in os.environ:  # which has that of the process that started it
    HUB = tempfile.TemporaryDirectory()
    os.environ["HF_HUB_CACHE"] = HUB.name

import pytest
import yaml
from click.testing import CliRunner
from filelock import FileLock

from ocl_bench.cli import main
from ocl_bench.evaluate import vllm_engine
from ocl_bench.forking import Refused, Template
from ocl_bench.leaderboard import validate
from ocl_bench.leaderboard.initial import Initial
from ocl_bench.processes import Child, Files, Process, Start, spawn
from ocl_bench.runner import compute
from ocl_bench.runner.messages import Note
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

# A machine may forbid Python to keep compiled modules, which each of the many processes would then compile again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Processes that are to come of one template get one environment, and this is another in each test.
compute._DISTRIBUTED.add("PYTEST_CURRENT_TEST")

SMALL = ("source_args.num_entities=60", "evaluate.curve_questions=10")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
# architecture → its tokenizer and its configuration, without vocabulary and special tokens
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("byte_bpe", {**SIZES, "max_position_embeddings": 128}),
    "gpt2": (
        "byte_bpe",
        {
            "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        },
    ),
    "opt": (
        "byte_bpe_with_bos",
        {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64,
            "word_embed_proj_dim": 32, "max_position_embeddings": 128,
        },
    ),
    "llama": ("unigram_with_bos", {**SIZES, "num_key_value_heads": 1, "max_position_embeddings": 128}),
    "qwen3": ("byte_bpe", {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128}),
    "gemma2": (
        "unigram_with_bos",
        {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128},
    ),
    "mamba": ("byte_bpe", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "mixtral": (
        "unigram_with_bos",
        {**SIZES, "num_key_value_heads": 1, "num_local_experts": 2, "max_position_embeddings": 128},
    ),
    "t5": ("unigram_with_eos", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}),
    "bart": (
        "byte_bpe_with_bos",
        {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
            "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 128,
        },
    ),
    "byt5": ("bytes", {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}),
}  # fmt: skip


@pytest.fixture(scope="session")
def small_task() -> Task:
    """The attributes task with 60 entities."""
    return load_task("attributes", SMALL)


@pytest.fixture(scope="session")
def small_records(small_task: Task) -> list[Record]:
    return build(small_task, seed=0)


def make_tokenizer(kind: str, texts: list[str]) -> Any:
    """Train a small tokenizer of one of the kinds that pretrained models come with."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

    if kind == "bytes":
        return ByT5Tokenizer(extra_ids=0)
    if kind.startswith("byte_bpe"):
        # As GPT-NeoX and GPT-2: no pad token, nothing put in front; OPT and BART put a bos token in front.
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        if kind == "byte_bpe_with_bos":
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
            return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<s>")
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    # As Llama and T5: a unigram model over text whose spaces are marks; T5's drops newlines.
    with_bos = kind == "unigram_with_bos"
    tokenizer = Tokenizer(models.Unigram())
    if not with_bos:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("\n", " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        initial_alphabet=sorted({char for text in texts for char in text}),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if with_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def make_model(architecture: str, folder: Path, texts: list[str]) -> Path:
    """Save a tiny random-weight model of `architecture` and its tokenizer in `folder`."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, set_seed

    kind, sizes = ARCHITECTURES[architecture]
    tokenizer = make_tokenizer(kind, texts)
    config = AutoConfig.for_model("t5" if architecture == "byt5" else architecture, **sizes)
    config.vocab_size = len(tokenizer)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    if config.is_encoder_decoder:
        config.pad_token_id = config.decoder_start_token_id = tokenizer.pad_token_id or 0
    set_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    auto.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, small_records: list[Record]) -> Any:
    """A function that gives the folder of a tiny model of an architecture, made once per session."""
    texts = [record.prompt + record.completion for record in small_records]
    made: dict[str, Path] = {}

    def folder_of(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = make_model(architecture, tmp_path_factory.mktemp(architecture), texts)
        return made[architecture]

    return folder_of


# Files that take long, the longest first: two processes that are given them early end at about the same time.
LONG = (
    "test_torture", "test_corpus", "test_lm_eval", "test_site", "test_notebook", "test_workflow", "test_serving",
    "test_verify", "test_clusters", "test_replay", "test_availability", "test_validate", "test_sharding",
    "test_vllm_engine", "test_task_files", "test_going_on", "test_run", "test_world", "test_keeping", "test_mechanism",
    "test_any_model", "test_initial", "test_digit_grid", "test_resume", "test_digits", "test_part", "test_world_entry",
    "test_contribution", "test_shard", "test_docs", "test_pull_request", "test_evaluators", "test_submit",
    "test_probes", "test_wheel", "test_wrong_options", "test_mechanisms", "test_plugins", "test_study", "test_sweep",
    "test_processes", "test_gradients", "test_bad_input", "test_fetch", "test_plan", "test_copies", "test_live",
    "test_metrics",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files are given to the processes that test."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def call(*arguments: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a folder, in this process, which has its libraries already: how it ends and what it prints.

    What only a process of its own can show (imports, signals, the installed command) is tested with one.
    """
    words = list(map(str, arguments))
    with contextlib.chdir(folder):
        done = CliRunner().invoke(main, words, env=environment, catch_exceptions=False)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Of what was imported, garbage is not sought whenever memory is wanted: 0.3 s, thrice a training.

    A process that trains for a run has no need of it: its template has done the same.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Extensions look at what is left when a process ends, and complain."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def initial() -> Iterator[Initial]:
    """The process that makes initial weights again: one for all checks of a test process, as it imports torch."""
    with Initial() as process, pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "Initial", lambda: contextlib.nullcontext(process))
        yield process


VLLM = ("vllm.entrypoints.llm", "vllm.v1.engine.llm_engine")


@pytest.fixture(scope="session")
def vllm_template() -> Iterator[Start]:
    """Starts vLLM's processes by forking one that has imported it, which takes most of their time."""
    import torch

    kept: list[Template] = []

    def start(module: str, arguments: Any, environment: Mapping[str, str], files: Files) -> Process:
        if torch.cuda.is_available():  # which no fork of a process can use that has looked at it
            return spawn(module, arguments, environment, files)
        own = {name: value for name, value in environment.items() if name != "PYTEST_CURRENT_TEST"}
        with contextlib.suppress(IndexError, Refused):
            return kept[-1].fork(module, arguments, own, files)
        kept.append(Template.started(VLLM, own))
        return kept[-1].fork(module, arguments, own, files)

    yield start
    for template in kept:
        template.end()


@pytest.fixture
def vllm_imported(vllm_template: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a test, vLLM is imported already."""
    monkeypatch.setattr(vllm_engine, "Child", partial(Child, start=vllm_template))


class Heard:
    """Progress of a run that keeps its messages: `progress=Heard(…).shown`.

    Args:
        on_message: called with each.
    """

    def __init__(self, on_message: Callable[[Any], object] = lambda message: None) -> None:
        self.on_message = on_message
        self.messages: list[Any] = []

    def shown(self, task: str, cells: int) -> "Heard":
        return self

    def __enter__(self) -> "Heard":
        return self

    def __exit__(self, *error: object) -> None: ...

    def built(self) -> None: ...

    def __call__(self, message: Any) -> None:
        self.messages.append(message)
        self.on_message(message)

    def of(self, kind: type) -> list[Any]:
        """The messages of a kind."""
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def notes(self) -> list[str]:
        return [note.text for note in self.of(Note)]


def once(factory: pytest.TempPathFactory, worker_id: str, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is filled by the first of the processes that test, and shared by all."""
    own = factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "made").touch()
    return folder


OWN_TASK = {
    "task": "own_colours", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
    "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "label",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}], "metadata": {"version": 3},
}  # fmt: skip


@pytest.fixture(scope="session")
def own_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An include path with a task for lm-eval, in the folder that the suite leaves to it."""
    folder = tmp_path_factory.mktemp("own") / "lm_eval"
    folder.mkdir()
    rows = [{"question": f"Q: {n}", "choices": ["red", "blue", "green"], "label": n % 3} for n in range(30)]
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset_kwargs": {"data_files": {"test": str(folder / "colours.jsonl")}}}
    (folder / "colours.yaml").write_text(yaml.safe_dump(OWN_TASK | data))
    return folder.parent


WHOLE = {
    "task": "attributes",
    "seeds": 2,
    "stage2_seeds": 2,
    "overrides": ("source_args.num_entities=60", "recipe.epochs=[2,2]", "evaluate.sets=[]"),
}
WHOLE_COMMAND = (
    "run", "--task", "attributes", "--seeds", "2", "--stage2-seeds", "2",
    *(part for override in WHOLE["overrides"] for part in ("--set", override)),
    "--output-path", "out",
)  # fmt: skip


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A run folder of two seeds with two stage-2 seeds each that were asked everything. Tests change copies only."""

    def make(folder: Path) -> None:
        done = call(*WHOLE_COMMAND, folder=folder)
        assert done.returncode == 0, done.stderr
        (folder / "printed.json").write_text(json.dumps([done.stdout, done.stderr]))

    made = once(tmp_path_factory, worker_id, "whole_run", make)
    (run,) = (made / "out" / "scratch__tiny" / "attributes").iterdir()
    return run


def assert_same(run: Path, whole: Path) -> None:
    """Of two runs of `WHOLE`, all that decides their numbers, and these themselves, are the same bytes."""
    decisive = ("data.jsonl", "answers.jsonl", "curve.jsonl", "model.safetensors", "results.json")
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.name in decisive)
    assert len(names) == 4 + 6 * 3 + 1
    assert filecmp.cmpfiles(whole, run, names, shallow=False) == (names, [], [])


@pytest.fixture
def whole_output(whole_run: Path, tmp_path: Path) -> Path:
    """A copy of the output folder of that run."""
    return shutil.copytree(whole_run.parents[2], tmp_path / "out")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished run of two seeds about few entities."""
    import ocl_bench

    def make(folder: Path) -> None:
        ocl_bench.run(
            "scratch:tiny-16",
            task="attributes",
            seeds=2,
            overrides=[
                "source_args.num_entities=80",
                "recipe.epochs=[3,2]",
                "evaluate.sets=[recall]",
                "evaluate.curve_questions=10",
            ],
            output_path=folder,
        )

    made = once(tmp_path_factory, worker_id, "small_run", make)
    (results,) = made.rglob("results.json")
    return results.parent


@pytest.fixture(scope="session")
def small_submission(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its submission to the open division, which passes the checks."""
    from ocl_bench.leaderboard.submission import Card, write_submission
    from ocl_bench.leaderboard.validate import check

    card = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="few entities")
    folder = tmp_path_factory.mktemp("submissions")
    submission = write_submission(small_run, folder, "open", "someone/small", card)
    assert check(folder / submission.place).problems == []
    return folder / submission.place
