"""Activations are those of each text alone; probes read what is there, and nowhere else; nothing else changes."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import call

import ocl_bench
from ocl_bench.errors import Diverged, OclBenchError
from ocl_bench.evaluate import activations
from ocl_bench.evaluate.activations import Activations, Look, hidden_states
from ocl_bench.evaluate.evaluator import Loaded, Observed
from ocl_bench.evaluate.probe_checks import check_layers, check_probes
from ocl_bench.evaluate.probes import Reading, Shown, marked, positions_of, shown_texts
from ocl_bench.evaluate.probing import Labelled, read, read_all, token_of
from ocl_bench.files import read_json_lines
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_config, load_model, load_tokenizer, outline
from ocl_bench.models.spec import parse_model
from ocl_bench.runner.manifest import read_manifest
from ocl_bench.score.probes import summarise
from ocl_bench.tasks.build import build
from ocl_bench.tasks.load import load_task
from ocl_bench.tasks.mechanisms import TEXT_POSITIONS, Probes
from ocl_bench.tasks.parts import members_of
from ocl_bench.tasks.records import Record, texts
from ocl_bench.tasks.schema import Task

PAIR = ("d1_cons_qa", "d2_incons_qa")
X2 = ("d1_cons", "d2_cons")


def loaded(name: str | Path, records: list[Record]) -> Loaded:
    spec = parse_model(str(name))
    tokenizer = load_tokenizer(spec, texts(records))
    model = load_model(spec, tokenizer, seed=0).eval()
    return Loaded(model, tokenizer, Encoder(tokenizer, model.config.is_encoder_decoder), autocast=False)


def alone(model: Any, prompt: list[int], completion: list[int], token: int) -> list[torch.Tensor]:
    """Each layer's activations at a token of prompt + completion, by a pass of its own over this text."""
    with torch.no_grad():
        if not model.config.is_encoder_decoder:
            found = model(input_ids=torch.tensor([prompt + completion]), output_hidden_states=True).hidden_states
            return [state[0, token] for state in found]
        start = model.config.decoder_start_token_id
        found = model(
            input_ids=torch.tensor([prompt]),
            decoder_input_ids=torch.tensor([[start, *completion]]),
            output_hidden_states=True,
        )
        if token < len(prompt):
            return [state[0, token] for state in found.encoder_hidden_states]
        return [state[0, token - len(prompt) + 1] for state in found.decoder_hidden_states]


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "mamba", "t5", "bart", "opt"])
def test_activations_are_those_of_each_text_alone_however_it_is_batched(
    architecture: str, model_folder: Any, small_task: Task, small_records: list[Record], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one = loaded(model_folder(architecture), small_records)
    one.model.double()
    shown = shown_texts([PAIR], small_records)[PAIR]
    records = [text.record for kind in ("definition", "qa") for text in shown[kind][:8]]
    marks = [marked(small_task, record) for record in records]
    encoded = one.encoder([(record.prompt, record.completion) for record in records], marks)
    looks, ends = [], []
    for number, (record, named) in enumerate(zip(records, marks, strict=True)):
        for position in (*named, *(["question/end"] if record.kind == "qa" else [])):
            looks.append(Look(number, token_of(encoded[number], position)))
            ends.append(named.get(position))
    for look, end in zip(looks, ends, strict=True):  # the last token of what is marked
        ids = (*encoded[look.text].prompt, *encoded[look.text].completion)
        if end is not None:
            assert one.tokenizer.decode([ids[look.token]]).strip()[-1] == end[-1]
    found = Activations(one, encoded, looks, None, tmp_path)
    assert found.max_tokens > 100
    wanted = [alone(one.model, [*encoded[at.text].prompt], [*encoded[at.text].completion], at.token) for at in looks]
    for number, states in enumerate(wanted):
        assert sum(found.has(number, layer) for layer in found.layers) == len(states)
        for layer, state in enumerate(states):
            np.testing.assert_allclose(found.of(layer)[number], state.numpy(), atol=1e-6)
    monkeypatch.setattr(activations, "BATCH_BYTES", 1)
    (tmp_path / "again").mkdir()
    again = Activations(one, encoded, looks, [1], tmp_path / "again")
    assert again.max_tokens == 1 and again.layers == [1]
    np.testing.assert_allclose(again.of(1), found.of(1), atol=1e-6)


PICTURES: dict[str, dict[str, Any]] = {
    "convnextv2": {"patch_size": 2, "depths": [1, 1], "hidden_sizes": [8, 16], "num_stages": 2},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "vit": {"image_size": 24, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32},
}  # fmt: skip


@pytest.mark.parametrize("kind", PICTURES)
def test_feature_maps_and_patches_of_pictures_are_averaged(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    task = load_task("digit_grid", ["source_args.num_entities=60"])
    records = build(task, 0)
    AutoModel.from_config(AutoConfig.for_model(kind, **PICTURES[kind])).save_pretrained(tmp_path / "model")
    one = loaded(tmp_path / "model", records)
    shown = shown_texts([PAIR], records)[PAIR]
    assert positions_of(task, PAIR, shown) == ["definition/picture", "question/picture"]
    own = [text.record for text in shown["qa"][:6]]
    encoded = one.encoder([(record.given, record.completion) for record in own])
    found = Activations(one, encoded, [Look(number, 0) for number in range(6)], None, tmp_path)
    pictures = [point.shown for point in activations._read_whole(encoded, False, 0)]
    for number, picture in enumerate(pictures):
        assert picture is not None
        pixels = picture.album.pixels(torch.tensor([picture.number]), torch.tensor([picture.draw]))
        (states,) = hidden_states(one.model, {"pixel_values": pixels})
        assert len(states) == len(found.layers) == (2 if kind == "vit" else 3)
        for layer, state in enumerate(states):
            mean = state[0].mean(dim=(1, 2)) if state.dim() == 4 else state[0].mean(dim=0)
            np.testing.assert_allclose(found.of(layer)[number], mean.detach().numpy(), atol=1e-5)
    readings = read_all(one, task, Probes(contrasts=(PAIR,), shuffles=1), {PAIR: shown}, 0)
    assert {(row.position, row.layer) for row in readings} == {
        (position, layer) for position in ("definition/picture", "question/picture") for layer in found.layers
    }


@pytest.fixture(scope="module")
def many() -> tuple[Task, list[Record]]:
    task = load_task("attributes", ["source_args.num_entities=1000"])
    return task, build(task, 0)


def test_a_planted_signal_is_found_where_it_is_and_nowhere_else(many: tuple[Task, list[Record]]) -> None:
    """Variables of one subset get a direction of their own behind the first layer, in questions alone.

    The tag is the same for both, which rounding must not tell apart.
    """
    task, records = many
    one, pair = loaded("scratch:tiny", records), ("d1_cons_qa", "d1_cons")
    shown = shown_texts([pair], records)
    first = {text.record.variable for text in shown[pair]["qa"] if text.first}
    ids = torch.tensor(one.tokenizer.convert_tokens_to_ids(sorted(first)))
    asks = one.tokenizer.convert_tokens_to_ids("Q:")
    seen: list[torch.Tensor] = []
    one.model.get_input_embeddings().register_forward_pre_hook(lambda module, given: seen.append(given[0]))

    def plant(module: Any, given: Any, found: torch.Tensor) -> torch.Tensor:
        place = torch.isin(seen[-1], ids) & (seen[-1][:, :1] == asks)
        added = torch.zeros_like(found)
        added[place] = torch.linspace(-1, 1, found.shape[-1])
        return found + added

    one.model.gpt_neox.layers[0].register_forward_hook(plant)
    probes = Probes(contrasts=(pair,), c=1.0)
    found = {(row.position, row.layer): row for row in read_all(one, task, probes, shown, 0)}
    last = one.model.config.num_hidden_layers
    assert set(found) == {(position, layer) for position in TEXT_POSITIONS for layer in range(last + 1)}
    # What a later layer makes of it may be at later tokens.
    may = {("question/variable", n) for n in range(1, last + 1)} | {("question/end", n) for n in range(2, last + 1)}
    assert found["question/variable", 1].accuracy == 1
    assert all(0.35 < row.accuracy < 0.65 for place, row in found.items() if place not in may)
    for layer in range(last + 1):
        assert found["definition/tag", layer].accuracy == 0.5
    assert found["question/end", 0].accuracy == 0.5 and found["question/end", 0].controls == (0.5,) * 3
    controls = [one for row in found.values() for one in row.controls]
    assert np.mean(controls) == pytest.approx(0.5, abs=0.03) and max(controls) < 0.7


def test_texts_that_differ_by_rounding_alone_are_read_as_equal() -> None:
    """Batches round differently, and a batch of one subset would be told from a batch of the other."""
    first = np.arange(200) < 100
    vectors = (np.ones((200, 8)) + 1e-7 * first[:, None]).astype(np.float32)
    labelled = Labelled.of([shown_of(n, first=bool(first[n]), about=str(n)) for n in range(200)], Probes(), 0)
    assert read(vectors, labelled, 1.0, PAIR, "question/end", 0).accuracy == 0.5
    vectors[0, 0] = np.nan
    with pytest.raises(Diverged, match="no longer numbers"):
        read(vectors, labelled, 1.0, PAIR, "question/end", 0)


def shown_of(number: int, first: bool, about: str) -> Shown:
    record = Record(
        id=str(number), subset=PAIR[not first], split="x1", kind="qa", prompt="", completion="", answers=("",),
        entity=about, variable=str(number), group="",
    )  # fmt: skip
    return Shown(record, first, about)


def test_folds_are_of_entities_so_that_whom_a_text_is_about_cannot_be_learned() -> None:
    """Four texts of each of 60 entities, with what is the entity's own, all in the subset that it drew."""
    rng = np.random.default_rng(0)
    entities = np.repeat(np.arange(60), 4)
    first = rng.permutation(np.arange(60) < 30)[entities]
    vectors = (rng.normal(size=(60, 100))[entities] + 0.1 * rng.normal(size=(240, 100))).astype(np.float32)

    def accuracy(about: list[str]) -> float:
        shown = [shown_of(n, bool(first[n]), about[n]) for n in range(240)]
        labelled = Labelled.of(shown, Probes(), 0)
        for own in set(about):
            assert len(set(labelled.folds[[one.about == own for one in shown]])) == 1
        return read(vectors, labelled, 1.0, PAIR, "question/end", 0).accuracy

    assert accuracy([str(n) for n in range(240)]) > 0.95  # folds by record
    assert 0.3 < accuracy([str(entity) for entity in entities]) < 0.7


def test_each_variable_is_shown_once_and_a_definition_is_about_whom_it_names() -> None:
    task = load_task("world", ["evaluate.probes=true", "source_args.num_entities=50"])
    assert task.evaluate.probes is not None
    records = build(task, 0)
    for pair, kinds in shown_texts(task.evaluate.probes.contrasts, records).items():
        for kind, own in kinds.items():
            variables = [one.record.variable for one in own]
            assert sorted(variables) == sorted({one.variable for one in records if one.subset in pair})
            assert {one.record.kind for one in own} == {kind}
            assert len({one.record.group for one in own}) == 1
            for one in own:
                assert one.about == (one.record.answers[0] if kind == "definition" else one.record.entity)
                assert one.first == (one.record.subset == pair[0])
        inconsistent = [one for one in kinds["definition"] if one.record.subset == "d2_incons_qa"]
        assert all(one.about != one.record.entity for one in inconsistent)
        # The order in which batches are made says nothing of the subset.
        order = [one.first for one in kinds["qa"]]
        assert order not in (sorted(order), sorted(order, reverse=True))


def test_parts_of_a_subset_are_told_apart_as_subsets_are(small_task: Task, small_records: list[Record]) -> None:
    pair = ("d1_cons_qa@1/2", "d1_cons_qa@2/2")
    shown = shown_texts([pair], small_records)[pair]
    assert positions_of(small_task, pair, shown) == list(TEXT_POSITIONS)
    for own in shown.values():
        assert {one.record.variable for one in own if one.first} == members_of(small_records, pair[0])
        assert {one.record.variable for one in own if not one.first} == members_of(small_records, pair[1])


def test_labels_are_shuffled_within_folds_and_anew_for_each_layer() -> None:
    rng = random.Random(0)
    shown = [shown_of(n, rng.random() < 0.3, str(n // 2)) for n in range(300)]
    labelled = Labelled.of(shown, Probes(shuffles=4), 7)
    first, *shuffled = labelled.labels(2)
    assert list(first) == [one.first for one in shown] and len(shuffled) == 4
    for own in shuffled:
        assert (own != first).any()
        for fold in range(5):
            assert own[labelled.folds == fold].sum() == first[labelled.folds == fold].sum()
    assert (labelled.labels(2) == labelled.labels(2)).all() and (labelled.labels(2) != labelled.labels(3)).any()


def test_an_unbalanced_contrast_has_chance_one_half_and_a_standard_error_over_entities() -> None:
    rng = np.random.default_rng(3)
    shown = [shown_of(n, n % 10 == 0, str(n // 4)) for n in range(800)]
    labelled = Labelled.of(shown, Probes(), 0)
    row = read(rng.normal(size=(800, 4)).astype(np.float32), labelled, 0.01, PAIR, "question/end", 1)
    assert row.accuracy == pytest.approx(0.5, abs=0.12)
    assert (row.n, row.entities) == (800, 200)
    # Of 80 and 720 texts, as if each were an entity's only one: sqrt(.25 (.25 / 80 + .25 / 720)).
    assert row.stderr == pytest.approx(0.0295, rel=0.15)


def reading(layer: int, accuracy: float, controls: tuple[float, ...], pair: tuple[str, str] = X2) -> Reading:
    return Reading(
        contrast=pair, position="question/variable", layer=layer, accuracy=accuracy, stderr=0.05, controls=controls,
        n=100, entities=80,
    )  # fmt: skip


def test_scores_are_over_seeds_beside_a_chance_band_from_the_controls() -> None:
    task = load_task("attributes", ["evaluate.probes=true"])
    observed = [
        Observed(0, 0, "x2", [reading(1, 0.9, (0.5, 0.54)), reading(0, 0.5, (0.46, 0.5))]),
        Observed(0, 1, "x2", [reading(1, 0.8, (0.5, 0.5)), reading(0, 0.5, (0.5, 0.5))]),
        Observed(1, 0, "x2", [reading(1, 0.89, (0.5, 0.48)), reading(0, 0.52, (0.5, 0.5))]),
    ]
    low, high = summarise(observed, task, {})["probes"]
    assert (low.layer, high.layer, high.stage, high.seeds, high.n) == (0, 1, "x2", 2, 300)
    assert high.per_seed == {"0": pytest.approx(0.85), "1": pytest.approx(0.89)}
    assert (high.mean, high.control) == (pytest.approx(0.87), pytest.approx(0.5))
    spread = np.sqrt((0.04**2 + 0.04**2 + 0.02**2) / 12)
    assert low.chance_band == high.chance_band == (
        pytest.approx(0.5 - 1.96 * spread / np.sqrt(2)), pytest.approx(0.5 + 1.96 * spread / np.sqrt(2)),
    )  # fmt: skip
    assert high.interval == "seeds" and high.apart and not low.apart
    assert high.selectivity.mean == pytest.approx(np.mean([0.85 - 0.51, 0.89 - 0.49]))
    (alone_,) = summarise([Observed(4, 0, "x1", [reading(1, 0.7, (0.4, 0.6))])], task, {})["probes"]
    assert alone_.interval == "entities" and alone_.ci95 == (pytest.approx(0.602), pytest.approx(0.798))
    assert alone_.selectivity.ci95[0] == pytest.approx(0.2 - 1.96 * np.sqrt(0.05**2 + 0.1**2 / 2))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ocl_bench.RunResult, ocl_bench.RunResult]:
    """A run without probes, and the same with them, in a folder of its own."""
    settings = ["source_args.num_entities=60", "recipe.epochs=[1,1]", "evaluate.sets=[]"]
    plain, probed = (
        ocl_bench.run(
            "scratch:tiny-16", "attributes", seeds=1, curves=False, overrides=[*settings, *more],
            output_path=tmp_path_factory.mktemp("run"),
        )
        for more in ([], ["evaluate.probes=true"])
    )  # fmt: skip
    return plain, probed


def test_a_run_with_probes_is_the_run_that_it_would_be_without(runs: Any) -> None:
    plain, probed = runs
    without, own = (
        {name: (one.key, one.weights_after) for name, one in read_manifest(run.folder).stages["seed-0"].items()}
        for run in runs
    )
    assert without == own and set(own) == {"x1", "x2"}
    assert plain.results.probes == () and "probes" not in (plain.folder / "results.json").read_text()
    assert probed.results.model_copy(update={"probes": ()}) == plain.results
    shown = {(one.stage, one.contrast) for one in probed.results.probes}
    assert shown == {(stage, pair) for stage in ("x1", "x2") for pair in (PAIR, X2)}
    rows = list(read_json_lines(probed.folder / "seed-0" / "x1" / "probes.jsonl"))
    assert len(rows) == 2 * 5 * 2 == len(probed.results.probes) / 2


def test_a_run_shows_its_probes_as_a_table_and_a_picture(runs: Any, tmp_path: Path) -> None:
    plain, probed = runs
    table = probed.table()
    assert "d1_cons_qa | d2_incons_qa" in table and "selectivity" in table and "best layer is chosen" in table
    assert (probed.folder / "probes.png").read_bytes().startswith(b"\x89PNG")
    assert not (plain.folder / "probes.png").exists()
    done = call("plot", probed.folder, "--of", "probes", "--output-path", "probes.svg", folder=tmp_path)
    assert done.returncode == 0 and "<svg" in (tmp_path / "probes.svg").read_text()
    done = call("plot", plain.folder, "--of", "probes", folder=tmp_path)
    assert done.returncode == 2 and "has no probes; run it with --set evaluate.probes=true" in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["evaluate.probes.layers=[0,7]"], r"evaluate.probes.layers: scratch:tiny-16 has layers 0 to 1, and no 7; "),
        (["evaluate.probes.layers=[-1]"], r"evaluate.probes.layers.*greater than or equal to 0"),
        (["evaluate.probes.positions=[question/start]"], "evaluate.probes.positions.*'definition/tag'"),
        (
            ["evaluate.probes.positions=[question/picture]"],
            "'d1_cons_qa' and 'd2_incons_qa' do not both have 'question/picture'; leave it out, they have "
            "definition/tag, definition/variable, definition/entity, question/variable, question/end",
        ),
        (
            ["evaluate.probes={contrasts: [[d1_cons_qa, qa_only]], positions: [definition/tag]}"],
            "'d1_cons_qa' and 'qa_only' do not both have 'definition/tag'; .*they have question/variable, question/end",
        ),
        (["evaluate.probes={contrasts: [[d1_cons_qa, d9]]}"], "evaluate.probes.contrasts: unknown subset 'd9'"),
        (["evaluate.probes={contrasts: [[d1_cons_qa, d2_cons_qa]]}"], "no entities are dealt to 'd2_cons_qa'"),
        (["evaluate.probes.folds=7"], "folds: 7 folds need as many entities of each subset.*'d1_cons' are about 6"),
        (
            ["design.in_context=true", "evaluate.sets=[]", "stages=[{name: x1, train: [x1]}]", "recipe.epochs=[1]"],
            "with design.in_context every question shows its definition",
        ),
    ],
)
def test_probes_that_cannot_be_are_refused_in_one_sentence_and_leave_nothing(
    settings: list[str], message: str, tmp_path: Path
) -> None:
    if not any(one.startswith("evaluate.probes={") for one in settings):
        settings = ["evaluate.probes={}", *settings]
    with pytest.raises(OclBenchError, match=message) as refused:
        ocl_bench.run(
            "scratch:tiny-16", "attributes", overrides=["source_args.num_entities=60", *settings], seeds=1,
            output_path=tmp_path / "out",
        )  # fmt: skip
    assert "\n" not in str(refused.value).strip() and not (tmp_path / "out").exists()


def test_subsets_that_show_nothing_in_common_are_refused(small_task: Task, small_records: list[Record]) -> None:
    """As the companion of the word order's task, which asks no questions of the source."""
    one = loaded("scratch:tiny-16", small_records)
    kept = [record for record in small_records if (record.subset, record.kind) != ("qa_only", "qa")]
    with pytest.raises(OclBenchError, match="have neither definitions nor questions in common; name others"):
        check_probes(Probes(contrasts=(("d1_cons_qa", "qa_only"),)), small_task, "m", one.encoder, kept)


def test_a_tokenizer_that_hides_a_position_is_refused(small_task: Task, small_records: list[Record]) -> None:
    one = loaded("scratch:tiny-16", small_records)

    class Hiding(Encoder):
        def __call__(self, pairs: Any, marks: Any = None) -> Any:
            return super().__call__(pairs, [{} for _ in pairs])

    with pytest.raises(OclBenchError, match=r"m: its tokenizer does not show where '.*' is in '.*', which"):
        check_probes(Probes(), small_task, "m", Hiding(one.tokenizer, False), small_records)


def outlined(name: str, records: list[Record]) -> Any:
    spec = parse_model(name)
    return outline(spec, load_config(spec), load_tokenizer(spec, texts(records)))


def test_a_model_without_hidden_states_and_one_without_room_are_refused(
    small_records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = outlined("scratch:tiny-16", small_records)
    forward = type(model.base_model).forward

    def silent(self: Any, *given: Any, **options: Any) -> Any:
        found = forward(self, *given, **options)
        found.hidden_states = None
        return found

    monkeypatch.setattr(type(model.base_model), "forward", silent)
    with pytest.raises(OclBenchError, match="m: it does not give the activations of its layers"):
        check_layers(Probes(), "m", model, None, 100, room=True)
    monkeypatch.undo()
    with pytest.raises(OclBenchError, match=r"activations may need .* GB, and the memory has .* GB left; name fewer"):
        check_layers(Probes(), "m", outlined("scratch:tiny-16", small_records), None, 10**10, room=True)
    check_layers(Probes(), "m", outlined("scratch:tiny-16", small_records), None, 10**10, room=False)


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "mamba", "mixtral", "t5", "bart"])
def test_layers_are_counted_without_weights(architecture: str, model_folder: Any, small_records: list[Record]) -> None:
    """Of a mixture of experts, which has to see numbers, by its configuration."""
    one = loaded(model_folder(architecture), small_records)
    given = {"input_ids": torch.tensor([[1, 2]])}
    if one.encoder.seq2seq:
        given["decoder_input_ids"] = torch.tensor([[1, 2]])
    last = len(max(hidden_states(one.model, given), key=len)) - 1
    model = outlined(str(model_folder(architecture)), small_records)
    check_layers(Probes(layers=(last,)), "m", model, None, 1, room=True)
    model = outlined(str(model_folder(architecture)), small_records)
    with pytest.raises(OclBenchError, match=f"layers 0 to {last}, and no {last + 1}"):
        check_layers(Probes(layers=(last + 1,)), "m", model, None, 1, room=True)
