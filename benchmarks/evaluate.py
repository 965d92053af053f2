"""Evaluation speed: the suite's two engines beside transformers' pipeline and lm-eval's wrapper of transformers.

All answer the same prompts with the same checkpoint, alternating, in one run. The model was finetuned briefly, so that
some of its answers are right. The time to the first answer is that of a fresh process: imports, loading, one answer.
"""

import contextlib
import gc
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from common import DTYPES, finetune, model, records, save, tokenizer
from tabulate import tabulate
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTNeoXConfig, pipeline, set_seed
from transformers.utils import logging

from ocl_bench.evaluate.ask import ask, encode_questions
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.evaluate.vllm_engine import VllmEngine
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.models.batches import datapoint
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.word_level import word_level_tokenizer
from ocl_bench.runner.compute import has_bf16
from ocl_bench.score.lm_eval_export import export
from ocl_bench.score.text import exact_match
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.records import Record, texts

BATCH = 128
NEW_TOKENS = 8
TASK = load_task("attributes")

Answer = Callable[[list[Record]], list[str]]


def make_checkpoint(shape: str, folder: Path) -> list[Record]:
    """Finetune a model of a shape for a moment and save it; returns questions to ask it."""
    if shape == "tiny":
        # One layer, one token a word, as scratch:tiny; two heads, because vLLM has none of 16 on a CPU.
        task = load_task("attributes", ["source_args.num_entities=5000"])
        asked = [record for record in build(task, seed=0) if record.kind == "qa"]
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
        asked = [record for record in everything if record.split == "test"]
        words = tokenizer([record.prompt + record.completion for record in everything])
        layers, width = map(int, shape.split(" × "))
        network = model(layers, width)
        train = [record for record in everything if record.kind == "qa"][:600]
        recipe = load_recipe("tiny", ["epochs=[4]", "learning_rate=1e-3", "warmup_steps=5"])
    encoder = Encoder(words, seq2seq=False)
    encoded = encoder([(record.prompt, record.completion) for record in train])
    finetune(network, [datapoint(one, False, "completion") for one in encoded], recipe, encoder.pad_id)
    network.save_pretrained(folder)
    words.save_pretrained(folder)
    return [record.model_copy(update={"split": "test"}) for record in asked]


def load(way: str, checkpoint: Path, precision: str, log: Path) -> tuple[Answer, Callable[[], None]]:
    """A way of answering, loaded, and what ends it."""
    words = AutoTokenizer.from_pretrained(checkpoint)
    encoder = Encoder(words, seq2seq=False)

    def weights(dtype: torch.dtype) -> Any:
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()

    if way in ("torch", "torch forced"):
        # As a run does: in fp32 where the processor has no units for bf16.
        engine = TorchEngine(weights(torch.float32), encoder, bf16=precision == "bf16" and has_bf16("cpu"))

        def by_torch(asked: list[Record]) -> list[str]:
            questions = encode_questions(asked, encoder)
            if way == "torch forced":
                forced = engine.forced([answers[0] for answers in questions.encoded])
                return [record.answers[0] if one.greedy else "" for record, one in zip(asked, forced, strict=True)]
            found = ask(engine, questions, NEW_TOKENS)
            return [answer.generated for answer in found.answers]

        return by_torch, lambda: None
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
            (name,) = export(TASK, [one.model_copy(update={"subset": "d1_cons"}) for one in asked], Path(folder))
            manager = TaskManager(include_path=folder, include_defaults=False)
            found = simple_evaluate(wrapper, tasks=[name], task_manager=manager, bootstrap_iters=0)
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        return [sample["resps"][0][0].strip() for sample in samples]

    return by_lm_eval, lambda: None


WAYS = ("torch", "torch forced", "vllm", "pipeline", "lm-eval hf")


def measure(checkpoint: Path, asked: list[Record], precision: str, rounds: int) -> list[dict[str, Any]]:
    """Prompts per second of each way, its em, and on how many prompts its answer is not the torch engine's."""
    loaded = {way: load(way, checkpoint, precision, checkpoint / "vllm.log") for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
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
    finally:
        for _, end in loaded.values():
            end()
    rows = []
    for way in WAYS:
        begun = time.perf_counter()
        arguments = ["--first", way, "--checkpoint", str(checkpoint), "--precision", precision]
        subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True)
        first = time.perf_counter() - begun
        hits = [exact_match(text, record.answers) for text, record in zip(said[way], asked, strict=True)]
        torch_hits = [exact_match(text, record.answers) for text, record in zip(said["torch"], asked, strict=True)]
        rows.append(
            {
                "precision": precision,
                "way": way,
                "prompts": len(asked),
                "prompts_per_second": len(asked) / median(seconds[way]),
                "torch_ratio": median(a / b for a, b in zip(seconds[way], seconds["torch"], strict=True)),
                "first_answer_seconds": first,
                "em": sum(hits) / len(hits),
                "em_differing": sum(a != b for a, b in zip(hits, torch_hits, strict=True)),
                "answers_differing": None
                if way == "torch forced"
                else sum(a != b for a, b in zip(said[way], said["torch"], strict=True)),
                "seconds": seconds[way],
            }
        )
    return rows


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Measurements of each way, alternating.")
@click.option("--tiny_prompts", default=20000, show_default=True, help="Questions for the tiny model.")
@click.option("--prompts", default=1000, show_default=True, help="Questions for the others.")
@click.option("--name", default="evaluate-cpu", show_default=True, help="Name of the JSON file.")
@click.option("--first", type=click.Choice(WAYS), hidden=True)
@click.option("--checkpoint", type=click.Path(path_type=Path), hidden=True)
@click.option("--precision", hidden=True)
def main(
    rounds: int,
    tiny_prompts: int,
    prompts: int,
    name: str,
    first: str | None,
    checkpoint: Path | None,
    precision: str,
) -> None:
    """Print prompts per second, how many times as fast the torch engine is, and the time to the first answer."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if first is not None and checkpoint is not None:
        answer, end = load(first, checkpoint, precision, checkpoint / "first.log")
        answer([record for record in records() if record.split == "test"][:1])
        end()
        return
    rows = []
    for shape, count, precisions in (("tiny", tiny_prompts, ("fp32",)), ("6 × 512", prompts, ("fp32", "bf16"))):
        with tempfile.TemporaryDirectory() as folder:
            asked = make_checkpoint(shape, Path(folder))[:count]
            for one in precisions:
                with contextlib.redirect_stderr(io.StringIO()):  # progress bars of others
                    found = measure(Path(folder), asked, one, rounds)
                rows += [{"shape": shape, **row} for row in found]
                for row in found:
                    click.echo(f"{shape} {one} {row['way']}: {row['prompts_per_second']:.0f}/s", err=True)
    headers = ["shape", "precision", "way", "prompts", "prompts /s", "torch is × as fast", "first answer after s", "em",
               "em ≠ torch", "answer ≠ torch"]  # fmt: skip
    table = [
        [row["shape"], row["precision"], row["way"], row["prompts"], f"{row['prompts_per_second']:.0f}",
         f"{row['torch_ratio']:.1f}", f"{row['first_answer_seconds']:.0f}", f"{row['em']:.3f}", row["em_differing"],
         row["answers_differing"]]
        for row in rows
    ]  # fmt: skip
    click.echo(tabulate(table, headers=headers, tablefmt="github", disable_numparse=True))
    click.echo(f"saved {save(name, rows)}")


if __name__ == "__main__":
    main()
