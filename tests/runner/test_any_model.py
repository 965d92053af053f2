"""Any model that transformers loads is finetuned and evaluated, without code for its family."""

import itertools
import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES
from msgspec.structs import replace

from ocl_bench.evaluate.ask import ask, encode_questions
from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.finetune.epoch import mixed
from ocl_bench.finetune.recipe import load_recipe
from ocl_bench.finetune.stage import StageReport, train_stage
from ocl_bench.models.batches import datapoint
from ocl_bench.models.encoding import Encoded, Encoder
from ocl_bench.models.load import load_config, load_model, load_tokenizer
from ocl_bench.models.spec import parse_model
from ocl_bench.score.metrics import EM
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task


def load(folder: Path) -> tuple[Any, Encoder]:
    spec = parse_model(str(folder))
    tokenizer = load_tokenizer(spec, [])
    return load_model(spec, tokenizer, seed=0).eval(), Encoder(tokenizer, load_config(spec).is_encoder_decoder)


def finetune(
    model: Any, encoder: Encoder, records: list[Record], epochs: int, rate: float, **recipe: Any
) -> StageReport:
    overrides = [f"epochs=[{epochs}]", f"learning_rate={rate}", "effective_batch_size=32", "precision=fp32"]
    loaded = load_recipe("paper", [*overrides, *(f"{key}={value}" for key, value in recipe.items())])
    encoded = encoder([(record.prompt, record.completion) for record in records])
    return train_stage(
        lambda: model,
        [datapoint(one, encoder.seq2seq, loaded.loss) for one in encoded],
        mixed(loaded.of_stage(0), [record.kind == "definition" for record in records]),
        recipe=loaded.of_stage(0), seed=0, pad_id=encoder.pad_id, device="cpu", bf16=False, batch_size=None,
        report_to=(), run_name="test", folder=Path("test-checkpoints"), log_folder=Path("test-logs"),
        checkpoint_seconds=math.inf, on_epoch=lambda model, epoch, loss: [],
    ).report  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_finetuning_teaches_the_answers_and_forced_scoring_agrees_with_generation(
    architecture: str, model_folder: Any, small_records: list[Record]
) -> None:
    model, encoder = load(model_folder(architecture))
    # Eight questions, trained on and then asked: a model that can be trained at all knows them by heart.
    few = [record for record in small_records if record.kind == "qa" and record.split == "x1"][:8]
    asked = encode_questions([replace(record, split="test") for record in few], encoder)
    before = ask(TorchEngine(model, encoder), asked, 8).answers
    report = finetune(model, encoder, few, epochs=200, rate=5e-3, optim="adamw_torch")
    after = ask(TorchEngine(model.eval(), encoder), asked, 8).answers

    assert report.optimizer_steps == 200
    assert sum(answer.logprob for answer in after) > sum(answer.logprob for answer in before) + 8
    matches = [EM.of(answer, record) for answer, record in zip(after, few, strict=True)]
    assert sum(matches) >= 7
    for answer, match in zip(after, matches, strict=True):
        assert match >= answer.em_forced, answer
    assert sum(answer.em_forced for answer in after) >= 7


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_scores_equal_those_of_each_prompt_alone(
    architecture: str, model_folder: Any, small_records: list[Record]
) -> None:
    model, encoder = load(model_folder(architecture))
    records = [record for record in small_records if record.split == "test"][:12] + [
        record for record in small_records if record.kind == "definition"
    ][:4]
    encoded = encoder([(record.prompt, record.completion) for record in records])
    engine = TorchEngine(model, encoder)
    together = engine.forced(encoded)
    alone = [engine.forced([one])[0] for one in encoded]
    for one, other in zip(together, alone, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert one.greedy == other.greedy
    assert engine.generate(encoded, [6] * 16) == [engine.generate([one], [6])[0] for one in encoded]


@torch.no_grad()
def greedy_ids(
    model: Any, encoder: Encoder, prompt: tuple[int, ...], count: int, begins: tuple[int, ...] = ()
) -> list[int]:
    """Greedy decoding as its definition says: one token after the other, each from a forward pass of its own."""
    ids = list(begins)
    while len(ids) < count and (not ids or ids[-1] not in encoder.stop_ids):
        if encoder.seq2seq:
            decoded = torch.tensor([[model.config.decoder_start_token_id, *ids]])
            logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoded).logits
        else:
            logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits
        ids.append(int(logits[0, -1].argmax()))
    return ids


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answers_are_greedy_with_and_without_what_a_forced_pass_has_shown(
    architecture: str, model_folder: Any, small_records: list[Record]
) -> None:
    model, encoder = load(model_folder(architecture))
    tests = [record for record in small_records if record.split == "test"][:16]
    prompts = encoder([(record.prompt, record.completion) for record in tests])
    greedy = [greedy_ids(model, encoder, one.prompt, 5) for one in prompts]
    engine = TorchEngine(model, encoder)
    assert engine.generate(prompts, [5] * 16) == greedy
    limits = [1, 2, 3, 4] * 4
    assert engine.generate(prompts, limits) == [ids[:limit] for ids, limit in zip(greedy, limits, strict=True)]
    # Answers that are right up to any token or altogether: all that a forced pass may find.
    forced = [
        Encoded(one.prompt, tuple(ids) if len(ids) < 5 else (*ids[:right], *one.completion)[:5])
        for one, ids, right in zip(prompts, greedy, itertools.cycle(range(6)))
    ]
    begins = [one.begins for one in engine.forced(forced)]
    assert max(map(len, begins)) == max(map(len, greedy))
    assert all(ids[: len(one)] == list(one) for ids, one in zip(greedy, begins, strict=True))
    assert engine.generate(prompts, [5] * 16, begins) == greedy
    # What is known is taken as it is, even if the model would say something else; an ended answer is not continued.
    other = next(token for token in prompts[0].completion if token not in (greedy[0][0], *encoder.stop_ids))
    continued = greedy_ids(model, encoder, prompts[0].prompt, 5, (other,))
    ended = (other, encoder.stop_ids[-1])
    assert engine.generate([prompts[0]] * 2, [5, 5], [(other,), (*ended, other)]) == [continued, list(ended)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_answering_scores_every_accepted_answer_and_goes_on_greedily(
    architecture: str, model_folder: Any, small_records: list[Record]
) -> None:
    model, encoder = load(model_folder(architecture))
    tests = [record for record in small_records if record.split == "test"][:40]
    right = encoder([(record.prompt, record.completion) for record in tests])
    limits = list(itertools.islice(itertools.cycle([6, 5, 8]), len(tests)))
    greedy = [greedy_ids(model, encoder, one.prompt, limit) for one, limit in zip(right, limits, strict=True)]
    # A second accepted answer that begins as greedy decoding does, for any number of tokens.
    questions = [
        [one, Encoded(one.prompt, (*ids[:shared], *one.completion)[: limit - 1])]
        for one, ids, limit, shared in zip(right, greedy, limits, itertools.cycle(range(6)))
    ]
    engine = TorchEngine(model, encoder)
    counts: list[int] = []
    found, answers = engine.answer(questions, limits, on_answered=counts.append)
    assert answers == greedy
    assert sum(counts) == len(tests)
    for question, own in zip(questions, found, strict=True):
        for one, scored in zip(question, own.forced, strict=True):
            (alone,) = engine.forced([one])
            assert scored.logprob == pytest.approx(alone.logprob, abs=1e-3)
            assert (scored.greedy, scored.begins) == (alone.greedy, alone.begins)


@pytest.mark.parametrize("wrong", [0, 3])
def test_answers_that_begin_otherwise_than_teacher_forcing_showed_are_counted(
    wrong: int, model_folder: Any, small_records: list[Record]
) -> None:
    model, encoder = load(model_folder("gpt_neox"))
    engine = TorchEngine(model, encoder)

    class Other:
        """Another engine, which begins some answers with a token that greedy decoding does not begin with."""

        def generate(self, encoded: Any, limits: Any, known: Any, on_answered: Any) -> list[list[int]]:
            answers = engine.generate(encoded, limits)
            return [[ids[0] + 1] if number < wrong else ids for number, ids in enumerate(answers)]

    questions = encode_questions(small_records, encoder)
    assert ask(engine, questions, 5, Other()).differing == wrong


def test_what_prompts_share_at_their_beginning_is_computed_once(model_folder: Any, small_task: Task) -> None:
    plain = {name: TorchEngine(*load(model_folder(name)))._caches for name in ARCHITECTURES}
    assert {name for name, caches in plain.items() if not caches} == {"gemma2", "mamba", "t5", "bart", "byt5"}
    model, encoder = load(model_folder("gpt_neox"))
    texts = [(f"Q: what is the colour of <|{name}|>?\nA:", " red\n") for name in map("".join, product("abc", repeat=4))]
    encoded = encoder(texts)
    seen: list[int] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda module, args: seen.append(args[0].numel()))
    engine = TorchEngine(model, encoder)
    seen.clear()
    engine.forced(encoded)
    assert sum(seen) < 0.6 * sum(len(one.prompt) + len(one.completion) for one in encoded)
    seen.clear()
    _, answers = engine.answer([[one] for one in encoded], [6] * len(encoded))
    assert sum(seen) < 0.6 * sum(len(one.prompt) for one in encoded) + sum(map(len, answers)) + 3 * len(encoded)


def test_answers_are_greedy_whatever_generation_settings_come_with_the_model(
    model_folder: Any, small_records: list[Record]
) -> None:
    from transformers import GenerationConfig

    model, encoder = load(model_folder("llama"))
    encoded = encoder([(record.prompt, record.completion) for record in small_records if record.split == "test"][:20])
    plain = TorchEngine(model, encoder).generate(encoded, [8] * 20)
    own = GenerationConfig(repetition_penalty=1.8, no_repeat_ngram_size=1, temperature=2.0, do_sample=True)
    model.generation_config = own
    assert TorchEngine(model, encoder).generate(encoded, [8] * 20) == plain
    assert model.generation_config is own


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_log_probability_is_that_of_the_plain_model(
    architecture: str, model_folder: Any, small_records: list[Record]
) -> None:
    model, encoder = load(model_folder(architecture))
    record = next(record for record in small_records if record.split == "test")
    (one,) = encoder([(record.prompt, record.completion)])
    (scored,) = TorchEngine(model, encoder).forced([one])
    completion = torch.tensor(one.completion)
    with torch.no_grad():
        if encoder.seq2seq:
            start = model.config.decoder_start_token_id
            logits = model(
                input_ids=torch.tensor([one.prompt]),
                decoder_input_ids=torch.tensor([[start, *one.completion[:-1]]]),
            ).logits[0]
        else:
            logits = model(input_ids=torch.tensor([[*one.prompt, *one.completion]])).logits[0][len(one.prompt) - 1 : -1]
    expected = torch.log_softmax(logits.float(), -1).gather(1, completion[:, None]).sum().item()
    assert scored.logprob == pytest.approx(expected, abs=1e-3)
