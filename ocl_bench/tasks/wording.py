"""How a definition is worded: templates with a tag, or with a named source and a phrase in natural language."""

import itertools
import random
import re
from functools import cache

from pydantic import Field, model_validator

from ocl_bench.contract import Contract
from ocl_bench.tasks.records import answer_text

PLACEHOLDER = re.compile(r"\{(\w+)\}")
# All are listed where definitions are made; the paper's have 144.
MAX_WAYS = 10_000
INTRODUCING = ("tag", "source", "phrase")
KNOWN = (*INTRODUCING, "variable", "entity")


class Wording(Contract):
    """The ways to word the definitions of one define tag."""

    templates: tuple[str, ...] = Field(
        min_length=1, description="texts with {variable} and {entity}, and {tag}, {source} or {phrase} where wanted"
    )
    sources: tuple[str, ...] = Field((), description="what {source} may be")
    phrases: tuple[str, ...] = Field((), description="what {phrase} may be, such as `is` or `is not`")

    @model_validator(mode="after")
    def _can_be_filled(self) -> "Wording":
        for template in self.templates:
            names = PLACEHOLDER.findall(template)
            unknown = [name for name in names if name not in KNOWN]
            if unknown:
                raise ValueError(f"'{template}' has {{{unknown[0]}}}; a template knows {', '.join(KNOWN)}")
            for name in ("variable", "entity"):
                if names.count(name) != 1:
                    raise ValueError(f"'{template}' needs {{{name}}} exactly once")
            for name, values in (("source", self.sources), ("phrase", self.phrases)):
                if name in names and not values:
                    raise ValueError(f"'{template}' has {{{name}}}, but there are no {name}s; add some")
            if " " not in template[: _last_element(template)]:
                raise ValueError(f"'{template}' has to have a space before its last placeholder")
        ways = len(self.templates) * max(1, len(self.sources)) * max(1, len(self.phrases))
        if ways > MAX_WAYS:
            raise ValueError(f"templates, sources and phrases make {ways} texts; give at most {MAX_WAYS}")
        return self

    @property
    def names_its_tag(self) -> bool:
        """Whether every text shows the define tag."""
        return all("{tag}" in template for template in self.templates)

    @property
    def introduces(self) -> bool:
        """Whether every text shows what introduces the variable: the define tag, or a source or phrase in its place."""
        return all(any(f"{{{name}}}" in template for name in INTRODUCING) for template in self.templates)

    def introduction(self, text: str, variable: str, entity: str) -> str:
        """What introduces the variable in a text that `texts` gave, prompt and completion in one; see `introduces`."""
        parts = {
            "tag": "(?P<tag>.+?)",
            "variable": re.escape(variable),
            "entity": re.escape(entity),
            **{name: f"(?P<{name}>{'|'.join(map(re.escape, ways))})" for name, ways in self._ways.items()},
        }
        for template in self.templates:
            whole = "".join(split_text(template, {name: f"{{{name}}}" for name in KNOWN}))
            literal = PLACEHOLDER.split(whole)  # every other one is a placeholder's name
            pattern = "".join(parts[one] if n % 2 else re.escape(one) for n, one in enumerate(literal))
            if found := re.fullmatch(pattern, text):
                return next(found[name] for name in INTRODUCING if name in found.groupdict())
        raise AssertionError(f"no template gives '{text}'")

    @property
    def _ways(self) -> dict[str, tuple[str, ...]]:
        return {"source": self.sources, "phrase": self.phrases}

    def combinations(self) -> list[tuple[str, str, str]]:
        """Every (template, source, phrase); one that a template does not use is empty."""
        found: list[tuple[str, str, str]] = []
        for template in self.templates:
            sources = self.sources if "{source}" in template else ("",)
            phrases = self.phrases if "{phrase}" in template else ("",)
            found += itertools.product((template,), sources, phrases)
        return found

    def texts(self, tag: str, variable: str, entity: str, rng: random.Random, count: int) -> list[tuple[str, str]]:
        """`count` differently worded definitions, each as prompt and completion."""
        combinations = self.combinations()
        assert count <= len(combinations), "the schema refuses more phrasings than there are wordings"
        drawn = combinations if len(combinations) == count == 1 else rng.sample(combinations, count)
        return [
            split_text(
                template, {"tag": tag, "source": source, "phrase": phrase, "variable": variable, "entity": entity}
            )
            for template, source, phrase in drawn
        ]


def _last_element(template: str) -> int:
    """Where the last of tag, variable and entity begins: what a seq2seq model has to write, with all behind it."""
    return max(match.start() for match in PLACEHOLDER.finditer(template) if match[1] in ("tag", "variable", "entity"))


def split_text(template: str, values: dict[str, str]) -> tuple[str, str]:
    """Prompt and completion of a filled template: everything before its last element, and the rest."""
    start = _last_element(template)
    prompt, rest = (
        # in one pass, so that braces in a value stay what they are
        PLACEHOLDER.sub(lambda match: values[match[1]], part)
        for part in (template[:start].rstrip(" "), template[start:])
    )
    return prompt, answer_text(rest)


@cache
def tag_wording(order: str) -> Wording:
    """The paper's wording: tag, variable and entity in one of their six orders, such as `tve`."""
    names = {"t": "{tag}", "v": "{variable}", "e": "{entity}"}
    return Wording(templates=(" ".join(names[letter] for letter in order),))
