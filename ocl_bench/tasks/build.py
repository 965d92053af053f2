"""Build a task's records: a pure function of the task file, the source's data, the seed and the stage-2 seed."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from ocl_bench.collection import without_collection
from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.evaluation_sets import asked_about, swapped
from ocl_bench.tasks.load import source_args
from ocl_bench.tasks.members import Member, held_out
from ocl_bench.tasks.names import Names, draw_names
from ocl_bench.tasks.parts import parted
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Design, Task, split_of
from ocl_bench.tasks.sources import SOURCES, Entity
from ocl_bench.tasks.subsets import ASKED, SUBSETS, Subset, deal, derangement, subset_sizes
from ocl_bench.tasks.x0 import names_after_x0, x0_records

ORDER = {split: place for place, split in enumerate(("x0", "x1", "x2", "test"))}


@without_collection()
def build(task: Task, seed: int, stage2_seed: int = 0, x0_seed: int = 0) -> list[Record]:
    """Build every record of `task`, in an order that depends on nothing but the arguments.

    Args:
        task: a validated task.
        seed: decides variables, tags, subsets, held-out questions and inconsistent definitions.
        stage2_seed: re-deals the entities of the X2 subsets; everything else stays as it is.
        x0_seed: decides which aliases X0 has of which entity, and which of their questions are not trained on.

    Raises:
        OclBenchError: if a subset would be empty, or trains on questions that the source does not have.
    """
    entities = load_entities(task)
    sizes = subset_sizes(task.design.fractions, task.design.alpha, len(entities))
    require_questions(task, sizes, entities)
    _require_parts(task, sizes, len(entities))
    require_cells(task, entities)
    values = _values(entities) if task.evaluate.options is not None else {}
    records: list[Record] = []
    names = names_of(task, seed, entities)
    if task.design.x0 is not None:
        records += _x0(task.model_dump_json(), x0_seed)
    for subset_name, numbers in deal(sizes, seed, stage2_seed).items():
        members = _members(task, SUBSETS[subset_name], numbers, entities, names, seed, values)
        for member in members:
            records.extend(member.records())
            records.extend(asked_about(task, member))
        if "swapped" in task.evaluate.sets:
            records.extend(swapped(task, members))
    return sorted(records, key=lambda record: ORDER[record.split])


def names_of(task: Task, seed: int, entities: Sequence[Entity]) -> Names:
    """The variables and tags of a dataset. Raises OclBenchError if there are fewer than it needs."""
    design = task.design
    if design.x0 is not None:
        return names_after_x0(_pool(task.model_dump_json()), design.x0, len(entities), seed)
    texts = _texts(design, entities)
    return draw_names(seed, len(entities), design.variable_style, design.tag_style, texts, design.picture)


def load_entities(task: Task) -> list[Entity]:
    """The source's entities, each as often as it has variables.

    Raises:
        OclBenchError: if the source cannot provide what the task asks for.
    """
    args = source_args(task)
    entities: list[Entity] = SOURCES.load(task.source)().entities(args)
    _require_text(task.source, entities)
    return entities * task.design.variables_per_entity


def _require_text(source: str, entities: Sequence[Entity]) -> None:
    """What a source gives, which may be another package's, is text. Raises OclBenchError naming what is not."""
    for entity in entities:
        texts = [entity.name]
        for question in entity.questions:
            texts += [question.group, question.template, *question.answers]
            if not question.answers or not isinstance(question.answers, tuple):
                raise OclBenchError(
                    f"source '{source}': a question about {entity.name!r} has the answers {question.answers!r}; "
                    "give a tuple of at least one."
                )
        if wrong := [text for text in texts if not isinstance(text, str)]:
            raise OclBenchError(
                f"source '{source}': {wrong[0]!r}, of the entity {entity.name!r}, is no text; give str."
            )


def require_cells(task: Task, entities: Sequence[Entity]) -> None:
    """Each question is about a cell of the picture. Raises OclBenchError if there are more or fewer."""
    picture = task.design.picture
    asked = {len(entity.questions) for entity in entities}
    if picture is not None and asked != {picture.cells}:
        raise OclBenchError(
            f"design.picture has {picture.rows} × {picture.columns} cells, and source '{task.source}' asks "
            f"{max(asked)} questions of an entity; give as many cells as questions."
        )


def _values(entities: Sequence[Entity]) -> dict[str, tuple[str, ...]]:
    """Group of a question → the values that its answers have, in the order of the alphabet."""
    values: dict[str, set[str]] = defaultdict(set)
    for entity in entities:
        for question in entity.questions:
            values[question.group].add(question.answers[0])
    return {group: tuple(sorted(own)) for group, own in values.items()}


# What all seeds of a task with an X0 have in common, by the task's JSON: it is most of their data.
@lru_cache(maxsize=2)
def _pool(task: str) -> Names:
    """The names that an X0 and every seed after it draw from."""
    own = Task.model_validate_json(task)
    entities, design = load_entities(own), own.design
    assert design.x0 is not None
    aliases = design.x0.aliases * len(entities) // design.variables_per_entity
    count = len(entities) + aliases
    return draw_names(0, count, design.variable_style, design.tag_style, _texts(design, entities))


@lru_cache(maxsize=4)
def _x0(task: str, x0_seed: int) -> tuple[Record, ...]:
    own = Task.model_validate_json(task)
    entities = load_entities(own)
    values = _values(entities) if own.evaluate.options is not None else {}
    return tuple(x0_records(own, entities, _pool(task), x0_seed, values))


def require_questions(task: Task, sizes: Mapping[str, int], entities: Sequence[Entity]) -> None:
    """Where questions are trained on, one is left to ask. Raises OclBenchError if an entity has too few."""
    least = min(len(entity.questions) for entity in entities)
    for name in sizes:
        if SUBSETS[name].qa and least < 2:
            raise OclBenchError(
                f"design.fractions: '{name}' trains on questions and holds some out, but source '{task.source}' has "
                f"an entity with {least}; set its fraction to 0."
            )


def _require_parts(task: Task, sizes: dict[str, int], variables: int) -> None:
    """No part that a stage trains on is without variables."""
    dealt = sizes | {"x0_facts": variables // task.design.variables_per_entity}
    for stage in task.stages:
        for selector in (*stage.train, *stage.replay):
            for name, size in dealt.items():
                if ASKED[name].split == split_of(selector) and size < parted(selector)[1].of:
                    raise OclBenchError(
                        f"stages: '{stage.name}' trains on '{selector}', but '{name}' has {size} variables; give fewer "
                        "parts, or raise source_args.num_entities."
                    )


def _texts(design: Design, entities: Sequence[Entity]) -> Iterator[str]:
    """Everything that a variable or tag must not occur in."""
    yield design.question_format
    for wording in (design.wording or {}).values():
        yield from (*wording.templates, *wording.sources, *wording.phrases)
    for entity in entities:
        yield entity.name
        for question in entity.questions:
            yield question.template
            yield from question.answers


def _members(
    task: Task,
    subset: Subset,
    numbers: list[int],
    entities: list[Entity],
    names: Names,
    seed: int,
    values: Mapping[str, tuple[str, ...]],
) -> list[Member]:
    rng = random.Random(f"{subset.id} {seed}")
    named = numbers if subset.consistent else derangement(numbers, [entities[n].name for n in numbers], rng)
    members = []
    for number, named_number in zip(numbers, named, strict=True):
        tags: tuple[str, ...] = ()
        if subset.tag is not None:
            tags = (names.random_tags[number] if subset.tag == "random" else names.tags[subset.tag - 1],)
        members.append(
            Member(
                design=task.design,
                subset=subset,
                number=number,
                entity=entities[number],
                named=entities[named_number],
                variable=names.variables[number],
                own_tags=tags,
                tags=names.tags,
                held_out=held_out(entities[number], rng) if subset.qa else frozenset(),
                seed=seed,
                values=values,
                options=task.evaluate.options,
            )
        )
    return members


def chance_levels(task: Task) -> dict[tuple[str, str], float]:
    """Kind and group of a question → accuracy of the best guess that does not look at the entity."""
    entities = load_entities(task)
    levels = {("qa", question.group): question.chance for entity in entities for question in entity.questions}
    guess = max(Counter(entity.name for entity in entities).values()) / len(entities)
    for kind in ("attribution", "attribution_qa"):
        levels |= {(kind, name): guess for name in task.evaluate.attribution}
    levels |= {("recall", question.group): question.chance for entity in entities for question in entity.questions}
    levels |= {("cloze", f"d{tag}"): guess for tag in (1, 2, 3)}
    return levels | {("bare_variable", ""): guess, ("recall", ""): guess}
