"""Recipes are data, and a wrong one is refused in one sentence."""

from pathlib import Path

import pytest

from ocl_bench.errors import OclBenchError
from ocl_bench.finetune.recipe import Adapter, Recipe, StageRecipe, load_recipe, recipe_files


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = load_recipe("paper")
    assert (recipe.optim, recipe.learning_rate, recipe.lr_scheduler_type) == ("adafactor", 5e-5, "linear")
    assert (recipe.warmup_steps, recipe.effective_batch_size, recipe.epochs) == (0, 256, (20, 10))
    assert (recipe.loss, recipe.precision, recipe.definition_share) == ("all", "bf16", None)


def test_every_recipe_of_the_suite_is_valid() -> None:
    assert {load_recipe(name).recipe for name in recipe_files()} == set(recipe_files())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=[1,1]", "unknown key 'epoch'; did you mean 'epochs'"),
        ("epochs=3", "epochs"),
        ("learning_rate=fast", "learning_rate.*valid number"),
        ("learning_rate=-1", "learning_rate.*greater than 0"),
        ("loss=some", "loss.*'all' or 'completion'"),
        ("learned_below=0", "learned_below.*greater than 0"),
        ("definition_share=1", "definition_share.*less than 1"),
        ("learning_rate=[1e-3]", "learning_rate has 1 values and epochs 2"),
        ("adapter=[null, null, null]", "adapter has 3 values and epochs 2"),
        ("effective_batch_size=[64, 64, 64]", "effective_batch_size has 3 values and epochs 2"),
        ("warmup_steps=-1", "warmup_steps.*greater than or equal to 0"),
        ("adapter={rank: 0, alpha: 32}", "rank.*greater than or equal to 1"),
        ("adapter={rank: 4, alpha: 32, dropout: .1}", "unknown key 'adapter.*dropout'"),
    ],
)
def test_a_wrong_value_names_the_key(override: str, message: str) -> None:
    with pytest.raises(OclBenchError, match=message):
        load_recipe("tiny", [override])


def test_an_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(OclBenchError, match="unknown recipe 'papper'; did you mean 'paper'"):
        load_recipe("papper")


def test_recipes_of_an_include_path_are_found(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    text = Path(recipe_files()["tiny"]).read_text().replace("recipe: tiny", "recipe: mine")
    (tmp_path / "recipes" / "mine.yaml").write_text(text)
    assert load_recipe("mine", include_path=[tmp_path]).recipe == "mine"


def test_a_stage_has_the_adapter_of_all_or_its_own() -> None:
    everywhere, later = load_recipe("lora"), load_recipe("lora_world", ["adapter=[null, {rank: 2, alpha: 8}, null]"])
    assert everywhere.of_stage(0).adapter == everywhere.of_stage(1).adapter == Adapter(rank=16, alpha=32)
    assert [later.of_stage(number).adapter for number in range(3)] == [None, Adapter(rank=2, alpha=8), None]


def test_a_stage_has_the_batch_and_the_warm_up_of_all_or_its_own() -> None:
    all_alike, own = (
        load_recipe("tiny"),
        load_recipe("tiny", ["effective_batch_size=[64, 512]", "warmup_steps=[100, 9]"]),
    )
    assert own.of_stage(0) == all_alike.of_stage(0)
    assert (own.of_stage(1).effective_batch_size, own.of_stage(1).warmup_steps) == (512, 9)


def test_the_recipe_of_a_stage_has_what_decides_its_training_and_nothing_else() -> None:
    tiny = load_recipe("tiny")
    renamed = load_recipe("tiny", ["description=other", "learned_below=0.1", "epochs=[7,30]"])
    assert tiny.of_stage(1) == renamed.of_stage(1) != tiny.of_stage(0)
    assert renamed.of_stage(0).epochs == 7
    assert tiny.of_stage(0) != load_recipe("tiny", ["weight_decay=0.2"]).of_stage(0)
    assert "adapter" not in tiny.of_stage(0).model_dump()  # or stages would be other than before there were any
    left = set(Recipe.model_fields) - set(StageRecipe.model_fields)
    assert left == {"recipe", "description", "learned_below"}


def test_a_recipe_is_laid_on_the_one_that_it_includes_by_name_or_file(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "slow.yaml").write_text("include: lora\nrecipe: slow\nadapter: {rank: 4}\n")
    (tmp_path / "slower.yaml").write_text("include: recipes/slow.yaml\nrecipe: slower\nlearning_rate: 1e-6\n")
    slow, slower = load_recipe("slow", include_path=[tmp_path]), load_recipe(str(tmp_path / "slower.yaml"))
    assert slow == load_recipe("lora", ["adapter.rank=4"]).model_copy(update={"recipe": "slow"})
    assert slower == slow.model_copy(update={"recipe": "slower", "learning_rate": 1e-6})


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("include: b.yaml\n", "include: a.yaml\n", ["a.yaml: include:", "(a.yaml → b.yaml → a.yaml)"]),
        ("include: a.yaml\n", "", ["(a.yaml → a.yaml)", "remove the include"]),
        ("include: b.yaml\n", "include: gone.yaml\n", ["a.yaml: include:", "b.yaml: include:", "gone.yaml: cannot"]),
        ("include: papper\n", "", ["a.yaml: include: unknown recipe 'papper'", "'paper'"]),
        ("include: [paper]\n", "", ["a.yaml: include must be a name or a file"]),
        ("include: tiny\nepoch: [3]\n", "", ["a.yaml: unknown key 'epoch'", "'epochs'"]),
        ("include: tiny\n", "", ["recipe is 'tiny'", "called a.yaml"]),
    ],
)  # fmt: skip
def test_an_include_that_cannot_be_is_refused_with_the_files_on_the_way(
    tmp_path: Path, one: str, other: str, words: list[str]
) -> None:
    (tmp_path / "a.yaml").write_text(one)
    (tmp_path / "b.yaml").write_text(other)
    with pytest.raises(OclBenchError) as error:
        load_recipe(str(tmp_path / "a.yaml"))
    for word in words:
        assert word in str(error.value)
