"""Evaluation speed: the suite's two engines beside transformers' pipeline and lm-eval's wrapper of transformers.

All answer the same prompts with the same checkpoint, alternating, in one run. The model was finetuned briefly, so that
some of its answers are right. Beside each figure stands what the machine could do (see roofline.py). The time to the
first answer is that of a fresh process: imports, loading, one answer.

    python benchmarks/evaluate.py [--only "6 × 512 bf16"]

JSON under results/, a file for each processor and precision; prints what `python benchmarks/tables.py` puts into
docs/performance.md.
"""

import contextlib
import gc
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from common import finetune, model, records, save, tokenizer
from machine import DTYPES, cache_bytes, has_units, machine, slug
from msgspec.structs import replace
from roofline import count, row, split
from tables import EVALUATED, WAYS, evaluation, kept
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, pipeline, set_seed
from transformers.utils import logging

from ocl_bench.evaluate.ask import ask, choices, encode_questions
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.evaluate.vllm_engine import VllmEngine
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.models.batches import datapoint
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.word_level import word_level_tokenizer
from ocl_bench.score.lm_eval_export import export
from ocl_bench.score.text import exact_match
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, texts

BATCH = 128
NEW_TOKENS = 8
TASK = load_task("attributes")

# Questions that are counted and profiled.
PROFILED = {"tiny": 1024, "6 × 512": 128}
OF_TORCH = ("torch", "torch forced", "torch choice")

Answer = Callable[[list[Record]], list[str]]


def make_checkpoint(shape: str, folder: Path) -> list[Record]:
    """Finetune a model of a shape for a moment and save it, unless it is there; returns questions to ask it."""
    if shape == "tiny":
        # One layer, one token a word, as scratch:tiny; two heads, because vLLM has none of 16 on a CPU.
        task = load_task("attributes", ["source_args.num_entities=6000"])
        asked = [record for record in build(task, seed=0) if record.split == "test" and record.options]
        words = word_level_tokenizer(texts(asked))
        set_seed(0)
        network = AutoModelForCausalLM.from_config(
            GPTNeoXConfig(
                vocab_size=len(words), hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                intermediate_size=256, max_position_embeddings=64,
            )
        )  # fmt: skip
        train, recipe = asked[::4], load_recipe("tiny", ["epochs=[8]"])
    else:
        everything = records()
        asked = [record for record in everything if record.split == "test" and record.options]
        words = tokenizer([record.prompt + record.completion for record in everything])
        layers, width = map(int, shape.split(" × "))
        network = model(layers, width)
        train = [record for record in everything if record.kind == "qa"][:600]
        recipe = load_recipe("tiny", ["epochs=[4]", "learning_rate=1e-3", "warmup_steps=5"])
    if not (folder / "config.json").exists():
        encoder = Encoder(words, seq2seq=False)
        encoded = encoder([(record.prompt, record.completion) for record in train])
        finetune(network, [datapoint(one, False, "completion") for one in encoded], recipe, encoder.pad_id)
        words.save_pretrained(folder)
        network.save_pretrained(folder)
    return [replace(record, split="test") for record in asked]


def load(way: str, checkpoint: Path, precision: str, log: Path) -> tuple[Answer, Callable[[], None]]:
    """A way of answering, loaded, and what ends it."""
    words = AutoTokenizer.from_pretrained(checkpoint)
    encoder = Encoder(words, seq2seq=False)

    def weights(dtype: torch.dtype) -> Any:
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()

    if way in OF_TORCH:
        engine = TorchEngine(weights(torch.float32), encoder, bf16=computes_in("torch", precision) == "bf16")

        def all_of_a_stage(asked: list[Record]) -> list[str]:
            found = ask(engine, encode_questions(asked, encoder), NEW_TOKENS)
            return [answer.generated for answer in found.answers]

        def forced(asked: list[Record]) -> list[str]:
            questions = encode_questions([replace(one, options=()) for one in asked], encoder)
            found = engine.forced([answers[0] for answers in questions.encoded])
            return [record.answers[0] if one.greedy else "" for record, one in zip(asked, found, strict=True)]

        def chosen(asked: list[Record]) -> list[str]:
            questions = encode_questions(asked, encoder)
            found = choices(questions, engine.score(questions.encoded, questions.options))
            return [record.options[number or 0] for record, number in zip(asked, found, strict=True)]

        return {"torch": all_of_a_stage, "torch forced": forced, "torch choice": chosen}[way], lambda: None
    if way == "vllm":
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
        served = VllmEngine(10**6, {"dtype": dtype, "max_model_len": 64, "enforce_eager": True}, log)
        served.start(str(checkpoint))

        def by_vllm(asked: list[Record]) -> list[str]:
            prompts = [one.prompt for one in encoder([(record.prompt, record.completion) for record in asked])]
            tokens = served.generate(checkpoint, prompts, [NEW_TOKENS] * len(prompts), encoder.stop_ids)
            return [encoder.decode_answer(ids) for ids in tokens]

        return by_vllm, served.close
    if way == "pipeline":
        generator = pipeline("text-generation", model=weights(DTYPES[precision]), tokenizer=words, device="cpu")

        def by_pipeline(asked: list[Record]) -> list[str]:
            prompts = [record.prompt for record in asked]
            outputs = generator(
                prompts, batch_size=BATCH, max_new_tokens=NEW_TOKENS, do_sample=False, return_full_text=False
            )
            return [output[0]["generated_text"].partition("\n")[0].strip() for output in outputs]

        return by_pipeline, lambda: None
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    wrapper = HFLM(pretrained=weights(DTYPES[precision]), tokenizer=words, batch_size=BATCH)

    def by_lm_eval(asked: list[Record]) -> list[str]:
        """As its users get it: contexts, answers and scores of an exported task."""
        with tempfile.TemporaryDirectory() as folder:
            # one task, of text alone
            told = [replace(one, subset="d1_cons", options=()) for one in asked]
            (name,) = export(TASK, told, Path(folder))
            manager = TaskManager(include_path=folder, include_defaults=False)
            found = simple_evaluate(wrapper, tasks=[name], task_manager=manager, bootstrap_iters=0)
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        return [sample["resps"][0][0].strip() for sample in samples]

    return by_lm_eval, lambda: None


def computes_in(way: str, precision: str) -> str:
    """The torch engine takes fp32, as in a run, where the processor has no units for bf16."""
    return "fp32" if way in OF_TORCH and not has_units(precision) else precision


def measure(
    shape: str, checkpoint: Path, asked: list[Record], precision: str, rounds: int, ways: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each way: its rate, what limits it, its em, and on how many prompts its answer is not torch's."""
    loaded = {way: load(way, checkpoint, precision, checkpoint / "vllm.log") for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    said: dict[str, list[str]] = {}
    try:
        for answer, _ in loaded.values():
            answer(asked[:32])  # whatever is set up at the first call
        for _ in range(rounds):
            for way, (answer, _) in loaded.items():
                # As timeit does: what one way leaves behind is not swept up on another's time.
                gc.collect()
                gc.disable()
                start = time.perf_counter()
                said[way] = answer(asked)
                seconds[way].append(time.perf_counter() - start)
                gc.enable()
        beside = {
            way: roof(answer, asked[: PROFILED[shape]], vocabulary(checkpoint), computes_in(way, precision))
            for way, (answer, _) in loaded.items()
            if way != "vllm"
        }
    finally:
        for _, end in loaded.values():
            end()
    hits = {way: [exact_match(text, one.answers) for text, one in zip(said[way], asked, strict=True)] for way in ways}
    rows = []
    for way in ways:
        generates = way not in ("torch forced", "torch choice")
        rows.append(
            {
                "shape": shape,
                "precision": precision,
                "way": way,
                "prompts": len(asked),
                "prompts_per_second": len(asked) / median(seconds[way]),
                "torch_ratio": median(a / b for a, b in zip(seconds[way], seconds["torch"], strict=True)),
                # What it does of one text does not depend on the model's size.
                "first_answer_seconds": first_answer(way, checkpoint, precision)
                if shape == "tiny" and generates
                else None,
                "right": sum(hits[way]) / len(asked),
                "em_differing": sum(a != b for a, b in zip(hits[way], hits["torch"], strict=True))
                if way != "torch choice"
                else None,
                "answers_differing": sum(a != b for a, b in zip(said[way], said["torch"], strict=True))
                if generates
                else None,
                "forced_passes": passes(checkpoint, asked, precision, rounds) if way == "torch choice" else None,
                "seconds": seconds[way],
                **beside.get(way, {}),
            }
        )
    return rows


def roof(answer: Answer, asked: list[Record], words: int, precision: str) -> dict[str, Any]:
    """What stands beside a rate: FLOP and bytes of a question, and where the time goes, of some of the questions."""
    work = count(lambda: answer(asked), cache_bytes()).of(len(asked))
    return row(work, split(lambda: answer(asked), words), precision)


def vocabulary(checkpoint: Path) -> int:
    """Rows of the output layer."""
    return int(AutoConfig.from_pretrained(checkpoint).vocab_size)


def passes(checkpoint: Path, asked: list[Record], precision: str, rounds: int) -> float:
    """How many forced passes choice adds to one over the same questions, of the engine alone: all is encoded before."""
    encoder = Encoder(AutoTokenizer.from_pretrained(checkpoint), seq2seq=False)
    network = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    engine = TorchEngine(network, encoder, bf16=computes_in("torch", precision) == "bf16")
    questions = encode_questions(asked, encoder)
    answers = [own[0] for own in questions.encoded]
    ratios = []
    for _ in range(rounds):
        start = time.perf_counter()
        engine.forced(answers)
        between = time.perf_counter()
        choices(questions, engine.score(questions.encoded, questions.options))
        ratios.append((time.perf_counter() - between) / (between - start) - 1)
    return median(ratios)


def first_answer(way: str, checkpoint: Path, precision: str) -> float:
    """Seconds of a process that answers one question."""
    begun = time.perf_counter()
    arguments = ["--first", way, "--checkpoint", str(checkpoint), "--precision", precision]
    subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Measurements of each way, alternating.")
@click.option("--tiny_prompts", default=20000, show_default=True, help="Questions for the tiny model.")
@click.option("--prompts", default=1000, show_default=True, help="Questions for the others.")
@click.option("--only", type=click.Choice([*EVALUATED]), help="Model and precision; the others' rows are kept.")
@click.option("--without", type=click.Choice([*WAYS][1:]), multiple=True, help="Ways to leave out, such as vllm.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keeps the checkpoints for another call.")
@click.option("--first", type=click.Choice([*WAYS]), hidden=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), hidden=True)
@click.option("--precision", hidden=True)
def main(
    rounds: int,
    tiny_prompts: int,
    prompts: int,
    only: str | None,
    without: Sequence[str],
    folder: Path | None,
    first: str | None,
    checkpoint: Path | None,
    precision: str,
) -> None:
    """Print questions per second, what the machine could do, where the rest goes, and the time to the first answer."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if first is not None and checkpoint is not None:
        answer, end = load(first, checkpoint, precision, checkpoint / "first.log")
        answer([record for record in records() if record.split == "test" and record.options][:1])
        end()
        return
    click.echo(machine().sentence())
    with tempfile.TemporaryDirectory() as temporary:
        for shape, precision in [EVALUATED[only]] if only else EVALUATED.values():
            place = (folder or Path(temporary)) / shape.replace(" × ", "x")
            asked = make_checkpoint(shape, place)[: tiny_prompts if shape == "tiny" else prompts]
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars of others
                found = measure(shape, place, asked, precision, rounds, [way for way in WAYS if way not in without])
            options = f"--rounds {rounds} --tiny_prompts {tiny_prompts} --prompts {prompts}"
            options += "".join(f" --without '{way}'" for way in without)
            found = [{**one, "command": f"python benchmarks/evaluate.py {options}"} for one in found]
            others = [one for one in kept("evaluate", slug(), [precision]) if one["shape"] != shape]
            path = save(f"evaluate-{slug()}-{precision}", others + found, machine=asdict(machine()))
            for one in found:
                click.echo(f"{shape} {precision} {one['way']}: {one['prompts_per_second']:.0f}/s", err=True)
            click.echo(f"saved {path}")
    click.echo(evaluation(slug()))


if __name__ == "__main__":
    main()
