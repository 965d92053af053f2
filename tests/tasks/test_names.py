"""Variables and tags: of the style asked for, all different, never inside another name or a text."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocl_bench.errors import OclBenchError
from ocl_bench.tasks.names import TagStyle, VariableStyle, draw_names

FORMS = {"brackets": r"<\|[a-z]{5}\|>", "letters": "[a-z]{3}", "names": r"\w+ \w+"}


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 300),
    st.sampled_from(["brackets", "letters", "names"]),
    st.sampled_from(["brackets", "define"]),
    st.lists(st.text("abcdefgh {}", max_size=20), max_size=20),
)
def test_names_are_of_their_form_and_occur_in_no_other_name_or_text(
    seed: int, count: int, style: VariableStyle, tag_style: TagStyle, texts: list[str]
) -> None:
    names = draw_names(seed, count, style, "define" if style == "letters" else tag_style, texts)
    every = [*names.variables, *names.tags, *names.random_tags]
    assert len(names.variables) == count
    assert len(names.tags) == 3
    assert len(names.random_tags) == count
    assert len(set(every)) == len(every)
    assert all(re.fullmatch(FORMS[style], name) for name in names.variables)
    for variable in names.variables:
        assert not any(variable in other for other in every if other != variable)
        assert not any(variable in text for text in texts)


def test_letters_avoid_the_words_of_the_task() -> None:
    names = draw_names(0, 8000, "letters", "define", ["true", "false"])
    assert not {"tru", "rue", "fal", "als", "lse", "def", "efi", "fin", "ine"} & set(names.variables)


def test_too_many_names_are_refused_with_the_key_and_the_count() -> None:
    with pytest.raises(OclBenchError, match=r"design.variable_style letters gives no more than about 175\d\d names"):
        draw_names(0, 17_600, "letters", "define", ["true"])
