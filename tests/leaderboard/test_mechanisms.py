"""A submission carries what probes and gradients say: checked for form, and shown on its page."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tampering import Copy

import ocl_bench
from ocl_bench.evaluate.evaluator import Observed
from ocl_bench.evaluate.gradients import Alignment, BatchGradients, GradientLook
from ocl_bench.evaluate.probes import Reading
from ocl_bench.leaderboard.checks.data import is_own
from ocl_bench.leaderboard.site import write_site
from ocl_bench.leaderboard.submission import Card, write_submission
from ocl_bench.leaderboard.table import ranked
from ocl_bench.leaderboard.validate import check
from ocl_bench.runner.folder import read_results
from ocl_bench.score import gradients, probes
from ocl_bench.score.result import Results
from ocl_bench.tasks.load import load_task

ACCEPTED = Path(__file__).parents[2] / "leaderboard" / "results"
CARD = Card(submitted_by="A. Researcher", contact="a@example.org", license="CC-BY-4.0", notes="few entities")
PROBES = {"contrasts": [["d1_cons", "d2_cons"]], "positions": ["question/end"], "folds": 2, "shuffles": 1}
GRADIENTS = {"subsets": ["d1_cons", "d2_cons"], "epochs": [1], "variables": 4, "batch": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds whose models were looked into, after each stage and in an epoch."""
    small = ["source_args.num_entities=60", "recipe.epochs=[2,2]", "evaluate.sets=[]", "evaluate.curve_questions=5"]
    looked_into = [f"evaluate.probes={json.dumps(PROBES)}", f"evaluate.gradients={json.dumps(GRADIENTS)}"]
    return ocl_bench.run(
        "scratch:tiny-16", task="attributes", seeds=2, overrides=[*small, *looked_into],
        output_path=tmp_path_factory.mktemp("inside"),
    ).folder  # fmt: skip


@pytest.fixture(scope="module")
def entry(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its submission."""
    folder = tmp_path_factory.mktemp("submissions")
    return folder / write_submission(run, folder, "open", "someone/inside", CARD).place


def looked_into_no_more(manifest: Any) -> None:
    del manifest["config"]["task"]["evaluate"]["probes"], manifest["config"]["task"]["evaluate"]["gradients"]


@pytest.fixture(scope="module")
def plain(entry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as if nobody had looked into its models."""
    copy = Copy(entry, tmp_path_factory.mktemp("plain"))
    copy.edit("manifest.json", looked_into_no_more)
    copy.edit("results.json", lambda results: [results.pop("probes"), results.pop("gradients")] and results)
    copy.rehash()
    assert copy.problems() == []
    return copy.path


@pytest.fixture
def copy(entry: Path, tmp_path: Path) -> Copy:
    return Copy(entry, tmp_path)


def test_a_submission_carries_the_summaries_of_its_run_and_passes(run: Path, entry: Path) -> None:
    own, submitted = read_results(run), read_results(entry)
    assert len(own.probes) == 2 * 2 and [one.epoch for one in own.gradients] == [1, None, 1, None]
    assert (submitted.probes, submitted.gradients) == (own.probes, own.gradients)
    checked = check(entry)
    assert checked.problems == []
    assert checked.ranked is not None and checked.ranked.probes == own.probes


def test_an_untouched_copy_passes_and_so_do_another_processors_last_digits(copy: Copy) -> None:
    def change(results: Any) -> None:
        results["probes"][0]["ci95"][0] *= 1 + 1e-12
        results["gradients"][1]["gaps"]["meta_ocl_gap"]["cosine"]["mean"] *= 1 + 1e-12

    copy.edit("results.json", change)
    copy.rehash()
    assert copy.problems() == []


def probe(*keys: Any, to: Any) -> Callable[[Any], None]:
    return value("probes", 0, *keys, to=to)


def gradient(*keys: Any, to: Any) -> Callable[[Any], None]:
    return value("gradients", 1, *keys, to=to)


def value(*keys: Any, to: Any) -> Callable[[Any], None]:
    """Set one value deep inside; a function as `to` gets the present one."""

    def change(results: Any) -> None:
        for key in keys[:-1]:
            results = results[key]
        results[keys[-1]] = to(results[keys[-1]]) if callable(to) else to

    return change


def shifted(number: float) -> float:
    return number + 0.01


def other_gap(results: Any) -> None:
    """A gap with statistics of its own seeds, which are not those of its subsets."""
    gap = results["gradients"][1]["gaps"]["meta_ocl_gap"]["alignment"]
    gap["mean"] += 0.01
    gap["ci95"] = [end + 0.01 for end in gap["ci95"]]
    gap["per_seed"] = {seed: number + 0.01 for seed, number in gap["per_seed"].items()}


def other_subset(results: Any) -> None:
    subsets = results["gradients"][0]["subsets"]
    subsets["d3_cons"] = subsets.pop("d2_cons")


# name → how to tamper with results.json, and the line that says so
TAMPERED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an accuracy": (probe("per_seed", "1", to=1.2), r"probes\.0\.per_seed\.1: is 1\.2; it is from 0 to 1"),
    "a mean accuracy": (probe("mean", to=shifted), r"probes\.0\.mean: is .*; the seeds give"),
    "an interval": (probe("ci95", 1, to=shifted), r"probes\.0\.ci95\.1: is .*; the seeds give"),
    "what an interval is of": (probe("interval", to="entities"), r"probes\.0\.interval: is not what as many seeds"),
    "controls": (probe("control", to=-0.5), r"probes\.0\.control: is -0\.5; it is from 0 to 1"),
    "a selectivity": (probe("selectivity", "mean", to=shifted), r"probes\.0\.selectivity\.mean: is .*; the seeds give"),
    "its interval": (probe("selectivity", "ci95", to=[2.0, 3.0]), r"probes\.0\.selectivity\.ci95: does not hold the m"),
    "chance": (probe("chance", to=0.4), r"probes\.0\.chance_band: is not as far above as below"),
    "a band": (probe("chance_band", to=[0.5, 0.6]), r"probes\.0\.chance_band: is not as far above as below"),
    "a seed": (probe("per_seed", to=lambda of: of | {"7": 0.5}), r"probes\.0\.per_seed: has not exactly the seeds 0"),
    "a layer": (probe("layer", to=9), r"probes\.0\.layer: is 9, and the model has layers 0 to 1"),
    "a stage": (probe("stage", to="x9"), r"probes\.0\.stage: is x9, which the task does not ask for"),
    "a position": (probe("position", to="question/variable"), r"probes\.0\.position: is question/variable, which"),
    "a contrast": (probe("contrast", to=["d1_cons", "unseen"]), r"probes\.0\.contrast: is d1_cons \| unseen, which"),
    "a probe twice": (
        lambda results: results["probes"].append(results["probes"][0]),
        r"probes\.\d: is there twice: d1_cons \| d2_cons after x1, question/end, layer 0",
    ),
    "a probe left out": (lambda results: results["probes"].pop(), r"probes: has \d entries; contrasts, stages, posit"),
    "no probes": (lambda results: results.pop("probes"), r"probes: has 0 entries; contrasts, stages"),
    "a cosine": (
        gradient("subsets", "d1_cons", "cosine", "per_seed", "0", to=2.0),
        r"gradients\.1\.subsets\.d1_cons\.cosine\.per_seed\.0: is 2; it is from -1 to 1",
    ),
    "a norm": (
        gradient("subsets", "d1_cons", "question_norm", "per_seed", "0", to=-1.0),
        r"gradients\.1\.subsets\.d1_cons\.question_norm\.per_seed\.0: is -1; it is from 0 to inf",
    ),
    "a huge product": (
        gradient("subsets", "d1_cons", "dot", "per_seed", to={"0": 1e308, "1": 1.7e308}),
        r"gradients\.1\.subsets\.d1_cons\.dot\.per_seed: holds numbers that no gradient has",
    ),
    "a tiny product": (
        gradient("subsets", "d1_cons", "dot", "per_seed", to={"0": 1e-110, "1": 2e-110}),
        r"gradients\.1\.subsets\.d1_cons\.dot\.(per_seed: holds numbers|mean: is)",
    ),
    "a variance": (
        gradient("batch", "variance", "mean", to=shifted), r"gradients\.1\.batch\.variance\.mean: is .*; the seeds give"
    ),
    "a gap": (
        gradient("gaps", "meta_ocl_gap", "cosine", "mean", to=shifted),
        r"gradients\.1\.gaps\.meta_ocl_gap\.cosine\.mean: is .*; the seeds give",
    ),
    "a gap that is no difference": (
        other_gap, r"gradients\.1\.gaps\.meta_ocl_gap\.alignment\.per_seed\.0: is .*; the seeds give"
    ),
    "a p": (
        gradient("gaps", "meta_ocl_gap", "cosine", "p", to=0.001),
        r"gradients\.1\.gaps\.meta_ocl_gap\.cosine\.p: is not what the seeds give",
    ),
    "very many variables": (
        gradient("subsets", "d1_cons", "dot", "n", to=10**9), r"gradients\.1\.subsets\.d1_cons: has other n than"
    ),
    "a batch": (gradient("batch", "variance", "n", to=9), r"gradients\.1\.batch: has other n than 4 of 2 models"),
    "a number of variables": (
        gradient("gaps", "meta_ocl_gap", "cosine", "n", to=1000),
        r"gradients\.1\.gaps\.meta_ocl_gap\.cosine\.n: is 1000; its subsets have 16",
    ),
    "a subset": (other_subset, r"gradients\.0\.subsets: has not exactly d1_cons, d2_cons"),
    "a quantity": (gradient("batch", to={}), r"gradients\.1\.batch: has not exactly pairwise_cosine, "),
    "an epoch": (value("gradients", 0, "epoch", to=9), r"gradients\.0: is after epoch 9 of x1, which the task"),
    "a moment twice": (
        lambda results: results["gradients"].append(results["gradients"][0]),
        r"gradients\.4: is there twice: after epoch 1 of x1",
    ),
    "a moment left out": (lambda results: results["gradients"].pop(), r"gradients: lacks the one after x2"),
    "moments in disorder": (lambda results: results["gradients"].reverse(), r"gradients: are not in the order of"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_what_was_tampered_with_is_refused_in_a_line_that_names_it(name: str, copy: Copy) -> None:
    tamper, line = TAMPERED[name]
    copy.edit("results.json", lambda results: tamper(results) and None)
    copy.rehash()
    problems = copy.problems()
    assert any(re.match(rf"results\.json: {line}", problem) for problem in problems), problems
    assert all(problem.isprintable() and "the checks failed" not in problem for problem in problems)


def test_an_accuracy_that_is_no_number_is_refused(copy: Copy) -> None:
    copy.replace("results.json", '"chance_band"', '"control": NaN, "chance_band"')
    copy.rehash()
    assert "results.json: holds NaN, which is no JSON number" in copy.problems()


@pytest.mark.parametrize("which", ["probes", "gradients"])
def test_what_the_task_does_not_ask_for_is_refused(which: str, copy: Copy) -> None:
    copy.edit("manifest.json", lambda manifest: manifest["config"]["task"]["evaluate"].pop(which) and None)
    copy.rehash()
    assert copy.problems() == [f"results.json: {which}: are there, and the task asks for none in evaluate.{which}"]


def test_gradients_that_no_run_can_look_at_are_refused(copy: Copy) -> None:
    copy.edit("manifest.json", value("config", "task", "evaluate", "gradients", "subsets", to=["d1_cons", "unseen"]))
    copy.rehash()
    assert copy.problems() == ["results.json: gradients: are of unseen, which has no definitions"]


def test_its_page_shows_pictures_and_tables(entry: Path, tmp_path: Path) -> None:
    (own,) = ranked([check(entry)])
    site = write_site([own], tmp_path / "site").parent
    page = (site / f"{own.slug}.html").read_text()
    for what in ("probes", "gradients"):
        assert f'<h2 id="{what}">' in page and f'<img src="{own.slug}-{what}.png" alt="' in page
        with Image.open(site / f"{own.slug}-{what}.png") as picture:
            assert picture.width > 500 and len(picture.convert("RGB").getcolors(10**6) or ()) > 10
    assert "<th>best layer" in page and "pairs in a batch" in page


def test_neither_checking_nor_a_page_without_pictures_needs_what_made_them(
    entry: Path, plain: Path, tmp_path: Path
) -> None:
    code = (
        "import json, sys; from pathlib import Path; from ocl_bench.leaderboard.validate import check; "
        "from ocl_bench.leaderboard.table import ranked; from ocl_bench.leaderboard.site import write_site; "
        f"problems = check(Path({str(entry)!r})).problems; "
        f"write_site(ranked([check(Path({str(plain)!r}))]), Path({str(tmp_path / 'site')!r})); "
        "heavy = ('torch', 'transformers', 'sklearn', 'matplotlib'); "
        "print(json.dumps([problems == [], [name for name in heavy if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, []]
    (page,) = (tmp_path / "site").glob("attributes-*.html")
    assert "<img" not in page.read_text() and not list((tmp_path / "site").glob("*.png"))


def test_a_task_is_the_suites_own_whatever_is_asked_of_the_models_inside() -> None:
    assert is_own(load_task("attributes", ["evaluate.probes=true", "evaluate.gradients=true"]))
    assert is_own(load_task("six_stages")) and is_own(load_task("six_stages", ["evaluate.probes=null"]))
    assert not is_own(load_task("attributes", ["source_args.num_entities=60"]))


def read_by(seed: int, stage: str) -> list[Reading]:
    drawn = random.Random(f"{seed} {stage}").random
    place = {"contrast": ("d1_cons", "d2_cons"), "position": "question/end"}
    return [
        Reading(**place, layer=layer, accuracy=0.5 + drawn() / 2, stderr=0.1, controls=(drawn(),), n=40, entities=20)
        for layer in (0, 1)
    ]


def seen_by(seed: int, stage: str) -> list[GradientLook]:
    drawn = random.Random(f"{seed} {stage}").random

    def aligned(subset: str) -> Alignment:
        cosines = {"cosine": drawn(), "cosine_other": drawn() / 2, "dot": drawn(), "dot_other": drawn()}
        return Alignment(variable=subset, entity=subset, **cosines, definition_norm=drawn(), question_norm=drawn())

    batch = BatchGradients(n=4, pairwise_cosine=drawn(), mean_cosine=drawn(), variance=drawn(), squared_norm=drawn())
    subsets = {subset: (aligned(subset), aligned(subset)) for subset in ("d1_cons", "d2_cons")}
    return [GradientLook(stage=stage, epoch=epoch, subsets=subsets, batch=batch) for epoch in (1, None)]


def summarised(summarise: Any, rows: Callable[[int, str], Sequence[Any]], task: Any, seeds: Sequence[int]) -> Any:
    return summarise(
        [Observed(seed, 0, stage, rows(seed, stage)) for seed in seeds for stage in ("x1", "x2")], task, {}
    )


def test_a_standard_entry_that_was_looked_into_stays_standard(tmp_path: Path) -> None:
    """Of an accepted entry, whose models are not here: what would have been found in them is made up."""
    (accepted,) = (ACCEPTED / "attributes" / "ocl-bench__gpt-neox-1x16").iterdir()
    copy = Copy(accepted, tmp_path)
    asked = [f"evaluate.probes={json.dumps(PROBES)}", f"evaluate.gradients={json.dumps(GRADIENTS)}"]
    task = load_task("attributes", asked)
    own = read_results(copy.path)
    found = summarised(probes.summarise, read_by, task, own.seeds)
    found |= summarised(gradients.summarise, seen_by, task, own.seeds)
    results: Results = own.model_copy(update=found)
    copy.write("results.json", results.model_dump_json(indent=2))
    copy.edit("manifest.json", lambda manifest: manifest["config"].update(task=json.loads(task.model_dump_json())))
    copy.rehash()
    checked = check(copy.path)
    assert list(map(str, checked.problems)) == []
    assert checked.submission is not None and checked.submission.division == "standard"
    assert checked.ranked is not None and checked.ranked.probes == results.probes
