"""The tables of docs/performance.md, from what benchmarks kept under results/. Needs no torch.

    python benchmarks/tables.py

puts them into the page, where comments name the benchmark and the machine.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PLACE = re.compile(r"(?<=<!-- )(training|evaluation) (\S+) -->\n.*?(?=\n<!-- end -->)", re.DOTALL)
PRECISIONS = ("fp32", "bf16")
# What a table has, in its order: shape and precision.
TRAINED = {f"{shape} {precision}": (shape, precision) for precision in PRECISIONS for shape in ("6 × 128", "6 × 512")}
EVALUATED = {"tiny fp32": ("tiny", "fp32"), "6 × 512 fp32": ("6 × 512", "fp32"), "6 × 512 bf16": ("6 × 512", "bf16")}
RECIPES = {"peer": "peer's recipe", "ours": "**ocl-bench**"}
WAYS = {
    "torch": "**ocl-bench, torch engine**: all that a stage is asked (choice, em, em_forced, logprob)",
    "torch forced": "its forced pass alone (em_forced, logprob)",
    "torch choice": "with its choice over ten options (choice, em_forced, logprob)",
    "vllm": "ocl-bench, vLLM (em)",
    "pipeline": "transformers' pipeline (em)",
    "lm-eval hf": "lm-eval, `hf` (em)",
}
TARGET = 1.5  # forced passes that choice over ten options is to take at most
BELOW = 0.5  # of a limit: then it is not what limits


def kept(name: str, machine: str, precisions: Sequence[str] = PRECISIONS) -> list[dict[str, Any]]:
    """The rows that a machine of this slug gave last for a benchmark, in the table's order."""
    paths = [RESULTS / f"{name}-{machine}-{precision}.json" for precision in precisions]
    rows = [one for path in paths if path.is_file() for one in json.loads(path.read_text())["rows"]]
    order = [*(TRAINED if name == "finetune" else EVALUATED).values()]
    return sorted(rows, key=lambda one: order.index((one["shape"], one["precision"])))


def sentence(machine: Mapping[str, Any]) -> str:
    """What a machine's rows can be held against."""
    units = f" with {machine['units']}" if machine["units"] else ""
    peaks = " and ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in machine["peak"].items())
    return (
        f"{machine['processor']}{units}, {machine['threads']} threads: matrix products of {peaks}, "
        f"{machine['bandwidth'] / 1e9:.0f} GB/s from memory, a last cache of {machine['cache_bytes'] / 2**20:.0f} MiB"
    )


def best(machine: str) -> dict[str, Any]:
    """A machine at its best, of all that was kept of it: others on a host take from what one measurement shows."""
    paths = [path for name in ("finetune", "evaluate") for path in RESULTS.glob(f"{name}-{machine}-*.json")]
    found = [json.loads(path.read_text())["machine"] for path in sorted(paths)]
    return found[0] | {
        "bandwidth": max(one["bandwidth"] for one in found),
        "peak": {precision: max(one["peak"][precision] for one in found) for precision in PRECISIONS},
    }


def told(name: str, machine: str) -> str:
    """The machine that a benchmark's rows are held against, and the commands that gave them."""
    commands = dict.fromkeys(f"`{row['command']}`" for row in kept(name, machine))
    return f"{sentence(best(machine))}. By {', '.join(commands)}:"


@dataclass(frozen=True)
class Shares:
    """How near a figure is to what the machine could do.

    Attributes:
        of_peak, of_bandwidth: from 0 to 1.
        at_most: units a second at which the larger of the two would be 1.
    """

    of_peak: float
    of_bandwidth: float
    at_most: float

    @classmethod
    def of(cls, found: Mapping[str, Any], rate: float, machine: Mapping[str, Any]) -> "Shares":
        """Of so many units a second, whose FLOP and bytes were counted."""
        peak, bandwidth = found["flops"] / machine["peak"][found["computed_in"]], found["bytes"] / machine["bandwidth"]
        return cls(peak * rate, bandwidth * rate, 1 / max(peak, bandwidth))

    def limit(self, where: Mapping[str, float]) -> str:
        """The roof that it is near, or what takes most of its time if it is near none."""
        if max(self.of_peak, self.of_bandwidth) >= BELOW:
            return "compute" if self.of_peak > self.of_bandwidth else "memory"
        return f"neither: {max(where, key=where.__getitem__)}"


def whole_percents(shares: Mapping[str, float]) -> dict[str, int]:
    """Percent as whole numbers that sum to 100: those are rounded up whose rests are largest."""
    found = {name: math.floor(value) for name, value in shares.items()}
    left = 100 - sum(found.values())
    for name in sorted(shares, key=lambda one: found[one] - shares[one])[:left]:
        found[name] += 1
    return found


def places(shares: Mapping[str, float], least: int = 3) -> str:
    """Where the time goes, the largest first; what is below `least` percent is summed up."""
    found = whole_percents(shares)
    large = {name: value for name, value in sorted(found.items(), key=lambda one: -one[1]) if value >= least}
    rest = 100 - sum(large.values())
    return ", ".join([f"{name} {value}" for name, value in large.items()] + ([f"else {rest}"] if rest else []))


BESIDE = ("MFLOP", "MB", "of peak", "of bandwidth", "at most", "limited by", "where the time goes, %")


def beside(found: Mapping[str, Any], rate: float, machine: Mapping[str, Any]) -> list[str]:
    """What stands beside a figure."""
    if "flops" not in found:
        return ["", "", "", "", "", "", "not seen: its own process"]
    shares = Shares.of(found, rate, machine)
    return [
        f"{found['flops'] / 1e6:.3g}", f"{found['bytes'] / 1e6:.2g}", f"{shares.of_peak:.0%}",
        f"{shares.of_bandwidth:.0%}", f"{shares.at_most:.0f}/s", shares.limit(found["shares"]), places(found["shares"]),
    ]  # fmt: skip


def training(machine: str) -> str:
    """The table of finetune.py, as Markdown."""
    headers = ["model", "", "tokens/s", "ratio", *BESIDE[:3], "real text alone", *BESIDE[3:]]
    lines, at_best = [], best(machine)
    for one in kept("finetune", machine):
        for way, name in RECIPES.items():
            own = one[way]
            rate, cells = own["tokens_per_second"], beside(own, own["tokens_per_second"], at_best)
            ratio = f"{one['ratio']:.2f}" if way == "ours" else ""
            lines.append(
                [f"{one['shape']}, {one['precision']}", name, f"{rate:.0f}", ratio, *cells[:3],
                 f"{own['useful_flops'] * rate / at_best['peak'][one['precision']]:.0%}", *cells[3:]]
            )  # fmt: skip
    return f"{told('finetune', machine)}\n\n{markdown(headers, lines)}"


def evaluation(machine: str) -> str:
    """The tables of evaluate.py, as Markdown: ways; what choice takes; the first answer."""
    rows = kept("evaluate", machine)
    if not rows:
        return "Not measured yet."
    at_best = best(machine)
    headers = ["model", "", "questions/s", "torch engine is × as fast", *BESIDE, "of it one token a pass, %"]
    lines = []
    for one in rows:
        rate, one_token = one["prompts_per_second"], one.get("one_token")
        lines.append(
            [f"{one['shape']}, {one['precision']}", WAYS[one["way"]], f"{rate:.0f}", f"{one['torch_ratio']:.1f}",
             *beside(one, rate, at_best), "" if one_token is None else f"{one_token:.0f}"]
        )  # fmt: skip
    chosen = [one for one in rows if one["way"] == "torch choice"]
    choice = [f"what choice over ten options adds, in forced passes (at most {TARGET} is aimed at)"]
    choice += [f"{one['forced_passes']:.2f}" for one in chosen]
    fresh = [one for one in rows if one["first_answer_seconds"]]
    first = [[WAYS[one["way"]].partition(":")[0], f"{one['first_answer_seconds']:.0f} s"] for one in fresh]
    parts = (
        (headers, lines),
        (["of the torch engine", *(f"{one['shape']}, {one['precision']}" for one in chosen)], [choice]),
        (["a fresh process", "its first answer after"], first),
    )
    tables = [markdown(names, own) for names, own in parts if own]
    return "\n\n".join([told("evaluate", machine), *tables])


def markdown(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose lines change only where its cells do."""
    rows = [headers, ["---"] * len(headers), *lines]
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in one) + "|" for one in rows)


def filled(page: str) -> str:
    """A page with what was kept in place of its tables."""
    made = {"training": training, "evaluation": evaluation}
    return PLACE.sub(lambda found: f"{found[1]} {found[2]} -->\n\n{made[found[1]](found[2])}\n", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
