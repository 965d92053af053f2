"""What is asked of the finetuned model besides the source's questions: the sets that a task's `evaluate.sets` names."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from ocl_bench.tasks.records import Record, answer_text
from ocl_bench.tasks.schema import Task
from ocl_bench.tasks.subsets import SUBSETS, SWAPPED

if TYPE_CHECKING:
    from ocl_bench.tasks.members import Member


def asked_about(task: Task, member: "Member") -> Iterator[Record]:
    """Test records of the task's evaluation sets about one member of a subset."""
    if not member.subset.replaced:
        return  # it has no variable
    named = member.named.name
    if "attribution" in task.evaluate.sets:
        for name, question in task.evaluate.attribution.items():
            text = task.design.question_format.replace("{question}", question.replace("{variable}", member.variable))
            prompt = member.context(0) + text
            yield member.record("attribution", prompt, answer_text(named), (named,), name, "test")
            if not member.subset.consistent:
                own = member.entity.name
                yield member.record("attribution_qa", prompt, answer_text(own), (own,), name, "test")
    if "bare_variable" in task.evaluate.sets:
        yield member.record("bare_variable", member.variable, answer_text(named), (named,), split="test")
    if "recall" in task.evaluate.sets and member.subset.id in SUBSETS:
        for number, (prompt, completion) in enumerate(member.definitions):
            suffix = f"/{number}" if len(member.definitions) > 1 else ""
            picture = member.picture("test", tag=member.own_tags[0])
            answers = (completion.strip(),)
            yield member.record("recall", prompt, completion, answers, split="test", suffix=suffix, picture=picture)
    if "cloze" in task.evaluate.sets:
        yield from _cloze(task, member)


def _cloze(task: Task, member: "Member") -> Iterator[Record]:
    """Each tag's wording up to its last element, whatever tag the member's own definition has."""
    tags: list[Literal[1, 2, 3]] = [1, 2, 3]
    for tag in tags:
        if not any(SUBSETS[name].tag == tag and share > 0 for name, share in task.design.fractions.items()):
            continue
        rng = random.Random(f"cloze {member.subset.id} {member.number} {tag} {member.seed}")
        wording = task.design.wording_of(tag)
        ((prompt, completion),) = wording.texts(member.tags[tag - 1], member.variable, member.named.name, rng, 1)
        yield member.record("cloze", prompt, completion, (completion.strip(),), f"d{tag}", "test")


def swapped(task: Task, members: Sequence["Member"]) -> Iterator[Record]:
    """The questions and evaluation sets of an X2 subset again, with the variables of its members swapped in pairs.

    A model that has learned what each variable stands for gives the partner's answer; one that answers alike for all
    variables of the subset does not notice. The last of an odd number of members swaps with its neighbours.
    """
    control = SWAPPED.get(members[0].subset.id) if members else None
    if control is None or len(members) < 2:
        return
    partners = [number ^ 1 for number in range(len(members))]
    if len(members) % 2:
        partners[-3:] = [len(members) - 2, len(members) - 1, len(members) - 3]
    for member, partner in zip(members, partners, strict=True):
        stranger = replace(member, subset=control, variable=members[partner].variable)
        for record in (*stranger.records(), *asked_about(task, stranger)):
            if record.split == "test":
                yield record
