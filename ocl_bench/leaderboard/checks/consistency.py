"""Teacher forcing, generation, log-probabilities and curves tell of the same model, as tightly as honest runs do.

Of the thirteen submissions that the suite began with (572,000 answers), none has em other than em_forced, none of its
forced answers a log-probability below -5.9, and no curve ends further than 7e-7 from its samples.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from ocl_bench.evaluate.answers import LOGPROB_DIGITS
from ocl_bench.evaluate.curve import CurvePoint
from ocl_bench.leaderboard.checks.data import Dataset
from ocl_bench.leaderboard.checks.reading import Checked
from ocl_bench.leaderboard.submission import MANIFEST, SAMPLES, AnswerLine, SubmittedAnswer
from ocl_bench.leaderboard.untrusted import Problem, printable
from ocl_bench.models.word_level import count_tokens
from ocl_bench.runner.cells import Cell
from ocl_bench.runner.identity import BaseIdentity
from ocl_bench.runner.manifest import Manifest
from ocl_bench.score.metrics import CHOICE, EM
from ocl_bench.score.samples import Sample, columns, told
from ocl_bench.score.text import exact_match
from ocl_bench.tasks.records import Record

# A token that is not the most likely one has at most half of the probability. Log-probabilities are of 32-bit sums.
NOT_GREEDY = math.log(0.5) + 0.02
# The most likely token has at least the mean probability, 1 / vocabulary; honest answers are far from that.
UNLIKELY = -6.0
UNLIKELY_SHARE = 0.01
# Answers on which teacher forcing and generation may differ: lossy tokenizers spell some texts in two ways, and two
# engines round differently.
DIFFERING_SHARE = 0.01
# Answers that are an option, while another is the most likely as a whole: none of 100,000 of models that learned their
# data; a few in a hundred of one that was hardly trained, where the likeliest first token may lead to an unlikely end.
NOT_CHOSEN_SHARE = 0.1
# How far a curve may end from its samples, which are of the same weights in other batches.
CURVE_TOLERANCE = {"cpu": 5e-6, "accelerator": 1e-3, "bfloat16": 0.02}  # besides one answer, but for the first

# Taught by the definitions of X2 alone.
LATE_SUBSETS = ("d1_cons", "d2_cons", "d3_cons")
MANY = 100  # answers that tell more than chance


def is_word_level(manifest: Manifest, cell: Cell, records: Dataset) -> bool:
    """Whether a cell's tokenizer is the suite's own, one token a word, so that its tokens can be counted here."""
    record = next(iter(manifest.stages.get(cell.owner(manifest.config.task, 0).name, {}).values()), None)
    if manifest.config.model.source != "scratch" or record is None:
        return False
    parent = record.identity.parent
    return isinstance(parent, BaseIdentity) and parent.tokenizer == records.vocabulary


def inconsistent_answers(
    name: str,
    answers: Sequence[AnswerLine],
    asked: Mapping[str, Record],
    manifest: Manifest,
    cell: Cell,
    config: Mapping[str, Any],
    word_level: bool,
) -> Iterator[Problem]:
    """What of a file's answers no model says.

    Args:
        name: the file.
        answers, asked: its answers, and the questions by id.
        manifest, cell: what they were made by.
        config: the model's configuration.
        word_level: whether the tokenizer is the suite's own.
    """
    vocabulary = math.log(max(2, _vocabulary_size(config)))
    low = max(-vocabulary, UNLIKELY)  # nothing above is too low for any number of tokens
    unlikely, differing, not_chosen = [], [], []

    def problem(key: str, text: str) -> Problem:
        return Problem(name, f"{one.stage} {one.id}: {key}", text)

    for one in answers:
        record = asked.get(one.id)
        if record is None:
            continue
        generated, logprob, choice, options = one.generated, one.logprob, one.choice, record.options
        if "\n" in generated or generated != generated.strip():
            yield problem("generated", "is not cut at the newline and stripped")
        if logprob != round(logprob, LOGPROB_DIGITS):
            yield problem("logprob", f"has more than {LOGPROB_DIGITS} decimals")
        if choice is None:
            if options:
                yield problem("choice", f"is None; the question has {len(options)} options")
        elif choice >= len(options):
            yield problem("choice", f"is {choice}; the question has {len(options)} options")
        elif logprob > NOT_GREEDY and options[choice] != record.answers[0]:
            text = f"is not the right one, though that has more than half of the probability ({logprob:g})"
            yield problem("choice", text)
        elif options[choice] != generated and generated in options:
            not_chosen.append(problem("choice", "is another option than the one that was generated"))
        if not one.em_forced:
            if logprob > NOT_GREEDY:
                yield problem("logprob", f"is {logprob:g}, more than half of the probability, but em_forced is 0")
            if generated == record.completion.strip():
                differing.append(problem("em_forced", "is 0, but just that answer was generated"))
        else:
            if logprob < low:  # which few are: tokens are counted of these alone
                tokens = count_tokens(record.completion) if word_level else len(record.completion.encode()) + 1
                if logprob < -vocabulary * max(1, tokens):
                    text = f"is {logprob:g}, less than a guess among all tokens, but em_forced is 1"
                    yield problem("logprob", text)
                elif logprob < UNLIKELY * (1 if word_level else max(1, count_tokens(record.completion))):
                    unlikely.append(problem("logprob", f"is {logprob:g}, but em_forced is 1"))
            if generated not in record.answers and not exact_match(generated, record.answers):
                differing.append(problem("em_forced", "is 1, but the generated answer is not an accepted one"))
    if len(unlikely) > UNLIKELY_SHARE * len(answers):
        yield from unlikely
    if len(not_chosen) > NOT_CHOSEN_SHARE * len(answers):
        yield from not_chosen
    if len(differing) > _may_differ(manifest, cell, len(answers), word_level):
        yield from differing


def _may_differ(manifest: Manifest, cell: Cell, answers: int, word_level: bool) -> float:
    """Answers of a cell on which teacher forcing and generation may differ."""
    found = manifest.evaluations.get(cell.name, {}).values()
    seen = sum(int(one["answers"].facts.get("differing", 0)) for one in found if "answers" in one)
    return min(seen, DIFFERING_SHARE * answers) + (0 if word_level else DIFFERING_SHARE * answers)


def _vocabulary_size(config: Mapping[str, Any]) -> int:
    """The largest number that a configuration, at any depth, has for its vocabulary; a million if it has none."""
    sizes, waiting = [], [config]
    while waiting:
        one = waiting.pop()
        size = one.get("vocab_size")
        if isinstance(size, int) and not isinstance(size, bool):
            sizes.append(size)
        waiting += [inner for inner in one.values() if isinstance(inner, dict)]
    return max(sizes, default=10**6)


def ends_at_samples(point: CurvePoint, samples: Sequence[Sample], manifest: Manifest, cell: Cell) -> bool:
    """Whether the last point of a curve says of its questions what the samples do."""
    tolerance = _tolerance(manifest, cell, point.stage)
    # On an accelerator a token that is as likely as the next may win in one batch and lose in another.
    one_answer = 0.0 if tolerance == CURVE_TOLERANCE["cpu"] else 1 / len(samples)
    em_forced, logprob = (
        fmean(values) for values in zip(*((one.answer.em_forced, one.answer.logprob) for one in samples), strict=True)
    )
    told = (CHOICE.of(one.answer, one.record) for one in samples)
    chosen = [right for right in told if right is not None]
    if (point.choice is None) != (not chosen):
        return False
    if point.choice is not None and abs(point.choice - fmean(chosen)) > tolerance + one_answer:
        return False
    return abs(point.em_forced - em_forced) <= tolerance + one_answer and abs(
        point.logprob - logprob
    ) <= tolerance * max(1.0, abs(point.logprob))


def is_possible(point: CurvePoint) -> bool:
    """Whether the answers behind a point of a curve can be those of a model: each that is not greedy is unlikely."""
    return point.logprob <= (1 - point.em_forced) * NOT_GREEDY + CURVE_TOLERANCE["accelerator"]


def wrong_losses(name: str, points: Sequence[CurvePoint], manifest: Manifest, cell: Cell) -> Iterator[Problem]:
    """Epochs of which a cell's curves tell several losses, and stages whose record tells another than the curve."""
    losses: dict[tuple[str, int], set[float]] = {}
    for point in points:
        losses.setdefault((point.stage, point.epoch), set()).add(point.loss)
    for (stage, epoch), found in losses.items():
        if len(found) > 1:
            yield Problem(name, printable(f"{stage} epoch {epoch}"), "has several losses")
    for stage, record in manifest.stages.get(cell.name, {}).items():
        last = losses.get((stage, record.epochs))
        if last is not None and last != {record.train_loss}:
            where = f"stages.{cell.name}.{stage}.train_loss"
            yield Problem(MANIFEST, where, "is not the loss at the end of the learning curve")


def _tolerance(manifest: Manifest, cell: Cell, stage: str) -> float:
    if str(manifest.config.compute.evaluation) != "float32":
        return CURVE_TOLERANCE["bfloat16"]
    record = manifest.stages.get(cell.name, {}).get(stage)
    devices = {manifest.config.compute.device, record.provenance.device if record else "cpu"}
    return CURVE_TOLERANCE["cpu" if devices == {"cpu"} else "accelerator"]


def untold_trainings(checked: Checked, manifest: Manifest) -> Iterator[Problem]:
    """What no training gives: knowledge of what was not taught yet, one score for all."""
    stages = [stage.name for stage in manifest.config.task.stages]
    late = set(stages[manifest.config.task.first_x2_stage :])
    untaught: dict[tuple[int, int, str, str], list[Sample]] = defaultdict(list)
    for sample in checked.samples:
        subset, stage = sample.record.subset, sample.stage
        if (subset == "unseen" or (subset in LATE_SUBSETS and stage not in late)) and sample.record.set == "qa":
            untaught[sample.seed, sample.stage2_seed, stage, subset].append(sample)
    for (seed, stage2_seed, stage, subset), own in untaught.items():
        asked = columns(own)
        for metric in (EM, CHOICE):
            values = list(asked.measured(metric))
            right = told(values)
            if not right:
                continue
            levels = map(metric.chance_of, asked.chance, asked.records)
            share = fmean(right)
            chance = fmean([level for level, value in zip(levels, values, strict=True) if value is not None])
            if share > chance + 0.1 + 5 * math.sqrt(chance * (1 - chance) / len(right)):
                where, what = f"{stage} {subset}", f"{metric.name} is {share:.2f} on what was not taught yet"
                yield Problem(f"{Cell(seed, stage2_seed).name}/{SAMPLES}", where, what)
    for cell in manifest.config.cells:
        owned = [checked.fingerprint.get((cell.name, stage.name)) for stage in cell.owned(manifest.config.task)]
        shown = [one[0][one[0] < -1e-3] for one in owned if one is not None]
        if any(len(one) >= MANY and len(np.unique(one)) < len(one) / 2 for one in shown):
            yield Problem(f"{cell.name}/{SAMPLES}", "logprob", "is the same of more than half of the answers")


def unchanged_stages(name: str, by_stage: Mapping[str, Sequence[AnswerLine | SubmittedAnswer]]) -> Iterator[Problem]:
    """Stages of a cell after which most of what was asked before has the same log-probability: nothing was trained."""
    for first, second in pairwise(by_stage.values()):
        before = {one.id: one.logprob for one in first if one.logprob < -1e-3}
        same = [before[one.id] == one.logprob for one in second if one.id in before]
        if len(same) >= MANY and fmean(same) > 0.5:
            yield Problem(name, "logprob", "a stage changed less than half of the answers")
