"""A real vLLM process: it answers as the torch engine does, takes one checkpoint after another, and cannot hang a run.

All tests but those that lose or refuse an engine share one process, as a run does. Processes are forked from one that
has imported vLLM, which takes most of their time; in `test_serving.py` most are started as a run starts them.
"""

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import VLLM, make_tokenizer

from ocl_bench.errors import OclBenchError
from ocl_bench.evaluate import vllm_engine
from ocl_bench.evaluate.ask import Questions, ask, encode_questions
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.evaluate.vllm_engine import EngineLost, EngineUnsupported, VllmEngine
from ocl_bench.finetune.epoch import everything
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.stage import train_stage
from ocl_bench.models.batches import datapoint
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.word_level import word_level_tokenizer
from ocl_bench.processes import Child, Start
from ocl_bench.score.metrics import EM
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import texts

# CI says so where vLLM has no build.
pytestmark = pytest.mark.skipif(os.environ.get("VLLM") == "none", reason="VLLM=none: there is no vLLM")

# Without the control, whose answers contradict those that `finetuned` trains on.
TASK = load_task("cvdb_sample", ["evaluate.sets=[attribution]"])
RECORDS = build(TASK, seed=0)
TOKENIZERS = ("byte_bpe", "byte_bpe_with_bos", "unigram_with_bos", "word_level")
# Heads of 32: vLLM's attention on a CPU has none smaller.
SHAPE = {
    "vocab_size": 2048, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256,
    "max_position_embeddings": 128,
}  # fmt: skip
ENGINE_ARGS = {"dtype": "float32", "max_model_len": 128, "enforce_eager": True}


def new_model(seed: int) -> Any:
    from transformers import AutoModelForCausalLM, GPTNeoXConfig, set_seed

    set_seed(seed)
    return AutoModelForCausalLM.from_config(GPTNeoXConfig(**SHAPE)).eval()


def encoder_of(kind: str) -> Encoder:
    if kind == "word_level":
        return Encoder(word_level_tokenizer(texts(RECORDS)), seq2seq=False)
    return Encoder(make_tokenizer(kind, [record.prompt + record.completion for record in RECORDS]), seq2seq=False)


def finetuned(encoder: Encoder) -> Any:
    """A model that has seen the questions and their answers, so that it answers some rightly and some wrongly."""
    model, trained = new_model(0), [record for record in RECORDS if record.kind == "qa"]
    encoded = encoder([(record.prompt, record.completion) for record in trained])
    train_stage(
        lambda: model,
        [datapoint(one, False, "completion") for one in encoded],
        everything(len(trained)),
        recipe=load_recipe("paper", ["epochs=[1]", "learning_rate=3e-3", "effective_batch_size=8"]).of_stage(0),
        seed=0, pad_id=encoder.pad_id, device="cpu", bf16=False, batch_size=None, report_to=(), run_name="test",
        folder=Path("test-checkpoints"), log_folder=Path("test-logs"), checkpoint_seconds=math.inf,
        on_epoch=lambda model, epoch, loss: [],
    )  # fmt: skip
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def imported(vllm_template: Start) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_engine, "Child", partial(Child, start=vllm_template))
        yield


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints of one shape with different random weights."""
    folders = [tmp_path_factory.mktemp("checkpoint") for _ in range(2)]
    for seed, folder in enumerate(folders):
        new_model(seed).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def vllm(checkpoints: list[Path], imported: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    with VllmEngine(10**6, ENGINE_ARGS, tmp_path_factory.mktemp("engine") / "vllm.log") as engine:
        engine.progress_seconds = -1  # a slow machine tells of every answer, also of the first, before it has started
        engine.start(str(checkpoints[0]))
        yield engine


@dataclass
class FromVllm:
    """Generates as `ask` wants it."""

    vllm: VllmEngine
    checkpoint: Path
    encoder: Encoder

    def generate(self, encoded: Any, limits: Any, known: Any, on_answered: Any) -> list[list[int]]:
        prompts = [one.prompt for one in encoded]
        return self.vllm.generate(self.checkpoint, prompts, limits, self.encoder.stop_ids, on_answered)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_vllm_says_token_for_token_what_the_torch_engine_says(kind: str, vllm: VllmEngine, tmp_path: Path) -> None:
    encoder = encoder_of(kind)
    questions = encode_questions(RECORDS, encoder).subset_sample(60, seed=0)
    prompts, limits = [answers[0] for answers in questions.encoded], [8] * len(questions.records)

    # Large random weights say something else to every prompt.
    varied = new_model(1)
    for parameter in varied.parameters():
        parameter.data.mul_(3)
    varied.save_pretrained(tmp_path / "varied")
    said = vllm.generate(tmp_path / "varied", [one.prompt for one in prompts], limits, encoder.stop_ids)
    assert said == TorchEngine(varied, encoder).generate(prompts, limits)
    assert len(said) > 300 and len({tuple(ids) for ids in said}) > 100

    model = finetuned(encoder)
    model.save_pretrained(tmp_path / "finetuned")
    engine = TorchEngine(model, encoder)
    served = FromVllm(vllm, tmp_path / "finetuned", encoder)
    by_vllm = ask(engine, questions, 8, served)
    by_torch = ask(engine, questions, 8)
    assert by_vllm == by_torch
    assert by_vllm.differing == 0
    right = [EM.of(*pair) for pair in zip(by_vllm.answers, questions.records, strict=True)]
    assert 0 < sum(right) < len(right)


def servers() -> list[psutil.Process]:
    """The vLLM processes of this one, and of the template that they are forked from."""
    own = [(one, " ".join(one.cmdline())) for one in psutil.Process().children()]
    forked_from = [one for one, words in own if VLLM[0] in words]
    return [one for one, words in own if "vllm_server" in words] + [
        one for template in forked_from for one in template.children()
    ]


def some_prompts() -> tuple[Questions, list[tuple[int, ...]], list[int]]:
    questions = encode_questions([record for record in RECORDS if record.split == "test"][:40], encoder_of("byte_bpe"))
    return questions, [one[0].prompt for one in questions.encoded], encoder_of("byte_bpe").stop_ids


def test_each_checkpoint_answers_for_itself_and_nothing_of_the_last_one_is_left(
    vllm: VllmEngine, checkpoints: list[Path]
) -> None:
    _, prompts, stops = some_prompts()
    answers = [vllm.generate(folder, prompts, [6] * 40, stops) for folder in [*checkpoints, checkpoints[0]]]
    assert answers[0] != answers[1] and answers[0] == answers[2]
    assert vllm.crashes == 0 and max(vllm.load_seconds) < 5


def test_answers_end_at_a_stop_token_or_at_their_own_limit(vllm: VllmEngine, checkpoints: list[Path]) -> None:
    _, prompts, _ = some_prompts()
    limits, counts = [1 + number % 5 for number in range(40)], []
    free = vllm.generate(checkpoints[0], prompts, limits, [], counts.append)
    assert [len(ids) for ids in free] == limits
    assert sum(counts) == 40
    stop = free[4][2]
    stopped = vllm.generate(checkpoints[0], prompts, limits, [stop])
    expected = [ids[: ids.index(stop) + 1] if stop in ids else ids for ids in free]
    assert stopped == expected and stopped != free


@pytest.mark.parametrize(
    ("passed", "sentence"),
    [
        (
            {"tensor_parallel_size": 64, "max_num_seqs": 16},
            r"--engine_args tensor_parallel_size=64: vLLM refuses that \(Total number of attention heads \(2\) ",
        ),
        # Its configuration is sound, and yet it does not start.
        (
            {"block_size": 7},
            r"--engine_args block_size=7: vLLM does not start with that, and does without \(.*vllm\.log",
        ),
    ],
)
def test_a_value_that_vllm_rejects_is_a_mistake_and_no_reason_to_take_another_engine(
    passed: dict[str, Any], sentence: str, checkpoints: list[Path], tmp_path: Path
) -> None:
    others = len(servers())
    with VllmEngine(10**6, ENGINE_ARGS | passed, tmp_path / "vllm.log", defaults=ENGINE_ARGS) as engine:
        with pytest.raises(OclBenchError, match=sentence) as refused:
            engine.start(str(checkpoints[0]))
        assert not isinstance(refused.value, EngineUnsupported) and engine.served is None
        assert "\n" not in str(refused.value)
    assert len(servers()) == others


def test_an_argument_that_vllm_does_not_know_is_a_mistake_and_no_reason_to_take_another_engine(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    args = ENGINE_ARGS | {"max_model_length": 5}
    with (
        VllmEngine(10**6, args, tmp_path / "vllm.log") as engine,
        pytest.raises(OclBenchError, match="vLLM knows no 'max_model_length'; did you mean 'max_model_len'") as refused,
    ):
        engine.start(str(checkpoints[0]))
    assert not isinstance(refused.value, EngineUnsupported)


def test_a_process_that_hangs_is_replaced_once_and_then_the_run_fails_in_one_sentence(
    vllm: VllmEngine, checkpoints: list[Path]
) -> None:
    """The last test of this file: it takes the engine that the others share to its end."""
    _, prompts, stops = some_prompts()
    before = vllm.generate(checkpoints[1], prompts, [6] * 40, stops)
    (first,) = servers()
    first.send_signal(signal.SIGSTOP)
    vllm.silent_seconds = 8
    counts: list[int] = []
    assert vllm.generate(checkpoints[1], prompts, [6] * 40, stops, counts.append) == before
    assert vllm.crashes == 1 and sum(counts) == 40
    assert not first.is_running()
    (second,) = servers()
    os.kill(second.pid, signal.SIGKILL)
    with pytest.raises(EngineLost, match=r"lost twice, the second time because it ended with code -9.*vllm\.log"):
        vllm.generate(checkpoints[1], prompts, [6] * 40, stops)
    assert servers() == [] and not second.is_running()
