"""Run one stage-1 seed: finetune every stage, evaluate at the end of each, for every stage-2 seed."""

import gc
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.utils import logging

from ocl_bench.evaluate.ability import AbilityScore, measure_ability
from ocl_bench.evaluate.answers import ANSWERS, write_answers
from ocl_bench.evaluate.ask import Asked, Questions, ask, curve_points, encode_questions
from ocl_bench.evaluate.curve import CurvePoint
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.files import (
    folder_atomic,
    sha256,
    sha256_of_file,
    to_json_lines,
    write_atomic,
)
from ocl_bench.finetune.stage import train_stage
from ocl_bench.models.batches import datapoint
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.load import BaseModel, checkpoint_spec, load_model, load_tokenizer, weights_sha256
from ocl_bench.processes import Emit
from ocl_bench.runner.manifest import RunConfig, StageRecord, torch_record
from ocl_bench.runner.messages import Answered, EpochDone, Generate, StageDone
from ocl_bench.runner.plan import cell_name
from ocl_bench.tasks.records import read_records, texts

# A request to the run's vLLM engine → token ids of the answers; None if the run turned out to have no such engine.
Serve = Callable[[Generate], list[list[int]] | None]

CURVE_POINTS = 20  # per stage: enough to see the shape, and well under a tenth of the run's time


def run_seed(folder: Path, config: RunConfig, base: BaseModel, seed: int, emit: Emit, serve: Serve) -> None:
    """Finetune and evaluate `seed` in the run folder, whose cells already hold their data.jsonl.

    Stage-2 seeds share the stages before the first that trains on X2.
    `base` keeps pretrained weights from seed to seed; `serve` asks the run's vLLM engine.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    stages, branch = config.task.stages, config.task.first_x2_stage
    first = SeedRun(folder, config, seed, config.stage2_seeds[0], emit, serve)
    first.run(base.copy(config.model, first.tokenizer, seed), range(len(stages)))
    for stage2_seed in config.stage2_seeds[1:]:
        free_memory()
        cell = SeedRun(folder, config, seed, stage2_seed, emit, serve)
        if branch == 0:
            model = base.copy(config.model, cell.tokenizer, seed)
        else:
            shared = first.folder / stages[branch - 1].name
            # The checkpoint's own tokenizer, so that its token ids hold whatever this cell's words are.
            cell.tokenizer = load_tokenizer(checkpoint_spec(shared, config.model), ())
            model = load_model(checkpoint_spec(shared, config.model), cell.tokenizer, seed)
        cell.run(model, range(branch, len(stages)))
        del model


def free_memory() -> None:
    """Give back what the last model and optimizer held: the Trainer leaves reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class SeedRun:
    """One cell of a run: a stage-1 seed with a stage-2 seed.

    Writes into the cell's folder: a checkpoint per stage with its `answers.jsonl`, and `curves.jsonl`.
    """

    def __init__(self, folder: Path, config: RunConfig, seed: int, stage2_seed: int, emit: Emit, serve: Serve) -> None:
        self.config, self.seed, self.stage2_seed = config, seed, stage2_seed
        self.folder = folder / cell_name(seed, stage2_seed)
        self.emit, self.serve = emit, serve
        self.records = read_records(self.folder / "data.jsonl")
        self.tokenizer = load_tokenizer(config.model, texts(self.records))
        self.curves: list[CurvePoint] = []
        self.ability: list[AbilityScore] = []

    def run(self, model: Any, stages: range) -> None:
        """Train `model` through `stages`, evaluating at the end of each."""
        device = "cuda" if self.config.device.startswith("cuda") else self.config.device
        model.to(device)
        encoder = Encoder(self.tokenizer, model.config.is_encoder_decoder)
        questions = encode_questions(self.records, encoder)
        if self.config.limit is not None:
            questions = questions.subset_sample(self.config.limit, seed=self.seed)
        trained = [record for record in self.records if record.split != "test"]
        encoded = dict(
            zip(
                (record.id for record in trained),
                encoder([(record.prompt, record.completion) for record in trained]),
                strict=True,
            )
        )
        engine = TorchEngine(model, encoder, bf16=torch_record(self.config).dtype == "bfloat16 autocast")
        # Pretrained weights are the same before every seed; random ones are each seed's own.
        first = self.seed == self.config.seeds[0] or self.config.model.source == "scratch"
        if first and stages.start == 0 and self.stage2_seed == self.config.stage2_seeds[0]:
            self._measure_ability(model, "before")
        for number in stages:
            self._stage(number, engine, encoded, questions)
        self._measure_ability(model, "after")

    def _measure_ability(self, model: Any, when: Literal["before", "after"]) -> None:
        """Ask the tasks of lm-eval that the run also asks."""
        config = self.config
        if not config.also_tasks:
            return
        folders = [Path(folder) for folder in config.also_path]
        model.eval()
        self.ability += measure_ability(model, self.tokenizer, when, config.also_tasks, folders, config.limit)
        rows = (score.model_dump(mode="json") for score in self.ability)
        write_atomic(self.folder / "ability.jsonl", to_json_lines(rows))

    def _stage(self, number: int, engine: TorchEngine, encoded: Mapping[str, Encoded], questions: Questions) -> None:
        config, stage = self.config, self.config.task.stages[number]
        records = [record for record in self.records if stage.trains_on(record.split, record.kind)]
        curve_questions = questions.of_curve(config.task.evaluate.curve_questions)
        epochs = config.recipe.epochs[number]
        step = -(-epochs // CURVE_POINTS)

        def on_epoch(epoch: int, loss: float) -> None:
            self.emit(EpochDone(*self._where(stage.name), epoch, epochs, loss))
            if config.curves and (epoch % step == 0 or epoch == epochs):
                self.curves += curve_points(engine, curve_questions, stage=stage.name, epoch=epoch, loss=loss)

        before = weights_sha256(engine.model)
        report = train_stage(
            engine.model,
            [datapoint(encoded[record.id], engine.encoder.seq2seq, config.recipe.loss) for record in records],
            [record.kind == "definition" for record in records],
            recipe=config.recipe,
            stage=number,
            seed=stage_seed(self.seed, number, self.stage2_seed),
            pad_id=engine.encoder.pad_id,
            device=config.device,
            batch_size=config.batch_size,
            report_to=config.report_to,
            run_name=f"{config.task.task}-{config.model.slug}-{self.folder.name}-{stage.name}",
            log_folder=self.folder / f"{stage.name}-logs",
            on_epoch=on_epoch,
        )
        with folder_atomic(self.folder / stage.name) as checkpoint:
            engine.model.save_pretrained(checkpoint)
            self.tokenizer.save_pretrained(checkpoint)
            start = time.perf_counter()
            asked = self._ask(stage.name, engine, questions, checkpoint)
            evaluate_seconds = time.perf_counter() - start
            weights = {"weights_before": before, "weights_after": weights_sha256(engine.model)}
            self._save(checkpoint, {**asdict(report), **weights, "evaluate_seconds": evaluate_seconds}, asked)
        self.emit(StageDone(*self._where(stage.name), "", report.seconds + evaluate_seconds, reused=False))

    def _ask(self, stage: str, engine: TorchEngine, questions: Questions, checkpoint: Path) -> Asked:
        engine.model.eval()
        where, of = self._where(stage), len(questions.records)

        def serve(
            checkpoint: str, prompts: list[list[int]], limits: list[int], stop_ids: list[int]
        ) -> list[list[int]] | None:
            return self.serve(Generate(*where, of, checkpoint, prompts, limits, stop_ids))

        return ask(
            engine,
            questions,
            self.config.task.evaluate.max_new_tokens,
            ServedEngine(engine, checkpoint, serve) if self.config.engine == "vllm" else None,
            on_answered=lambda count: self.emit(Answered(*where, count, of)),
        )

    def _save(self, checkpoint: Path, report: dict[str, Any], asked: Asked) -> None:
        """Write curves so far, and answers and what the stage did into its checkpoint, which is then complete."""
        rows = (point.model_dump(mode="json") for point in self.curves)
        write_atomic(self.folder / "curves.jsonl", to_json_lines(rows))
        write_answers(checkpoint / ANSWERS, asked.answers)
        record = StageRecord(
            **report,
            prompts_sha256=asked.prompts_sha256,
            answers=len(asked.answers),
            answers_differing=asked.differing,
            weights_sha256={path.name: sha256_of_file(path) for path in sorted(checkpoint.glob("*.safetensors"))},
            peak_memory_bytes=peak_memory(self.config.device),
        )
        (checkpoint / "stage.json").write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def _where(self, stage: str) -> tuple[int, int, str]:
        return self.seed, self.stage2_seed, stage


@dataclass(frozen=True)
class ServedEngine:
    """Generates with the run's vLLM engine, or with the torch engine if the run turned out to have none.

    Attributes:
        engine: the torch engine.
        checkpoint: folder of the weights to serve.
        serve: asks the vLLM engine: checkpoint, prompts, their limits, stop ids → tokens.
    """

    engine: TorchEngine
    checkpoint: Path
    serve: Callable[[str, list[list[int]], list[int], list[int]], list[list[int]] | None]

    def generate(
        self,
        encoded: Sequence[Encoded],
        max_new_tokens: Sequence[int],
        known: Sequence[Sequence[int]],
        on_answered: Callable[[int], None],
    ) -> list[list[int]]:
        """Answers from the prompts alone: what teacher forcing has shown of them is left as a check of the engine."""
        free_memory()  # on a GPU, vLLM takes what training has left
        tokens = self.serve(
            str(self.checkpoint.absolute()),
            [list(one.prompt) for one in encoded],
            list(max_new_tokens),
            self.engine.encoder.stop_ids,
        )
        return self.engine.generate(encoded, max_new_tokens, known, on_answered) if tokens is None else tokens


def stage_seed(seed: int, stage: int, stage2_seed: int) -> int:
    """The training seed of one stage: a 32-bit number that differs for every seed, stage and stage-2 seed."""
    return int(sha256(f"{seed} {stage} {stage2_seed}")[:8], 16)


def peak_memory(device: str) -> int:
    """Peak memory in bytes: of the accelerator if training runs there, else of this process."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
