"""Inject faults, and write what became of them."""

import json
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from torture.faults import FAULTS, Cases
from torture.page import page
from torture.runs import CORES, ROOT, Bench, Skipped

RESULTS = ROOT / "benchmarks" / "results" / "torture.json"
PAGE = ROOT / "docs" / "reliability.md"


def _try(bench: Bench, name: str, cases: Cases) -> dict[str, Any]:
    """What became of a case."""
    found: dict[str, Any] = {"name": name, "lost": None, "error": None, "skipped": None}
    start = time.perf_counter()
    try:
        found["lost"] = asdict(cases[name](bench))
    except Skipped as reason:
        found["skipped"] = str(reason)
    except Exception as error:  # one case that fails says nothing of the next
        found["error"] = str(error) or type(error).__name__
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def _say(fault: str, found: dict[str, Any]) -> None:
    state = found["skipped"] or found["error"] or f"passed, {found['lost']}"
    click.echo(f"{fault} {found['name']} ({found['seconds']} s): {state}")


@click.command()
@click.option("--short", is_flag=True, help="A case or none of each fault, in a minute or two; writes no page.")
@click.option("--only", multiple=True, type=click.Choice([fault.name for fault in FAULTS]), help="These faults.")
def main(short: bool, only: tuple[str, ...]) -> None:
    """Inject faults into real runs. The long form writes docs/reliability.md."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        bench = Bench(Path(folder))
        for fault in FAULTS:
            if only and fault.name not in only:
                continue
            cases, found = fault.short if short else fault.long, []
            for name in cases:
                found.append(_try(bench, name, cases))
                _say(fault.name, found[-1])
            failed += sum(one["error"] is not None for one in found)
            if not short:
                _keep(fault.name, found, bench)
    if failed:
        raise SystemExit(f"{failed} cases failed")


def _keep(fault: str, found: list[dict[str, Any]], bench: Bench) -> None:
    """Add what became of a fault's cases to the results, and write the page anew."""
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"cases": {}}
    facts = {"seconds": bench.seconds, "cores": len(CORES), "date": datetime.now(UTC).date().isoformat()}
    known = {**facts, "cases": {**known["cases"], fault: found}}
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")
    PAGE.write_text(page(known["cases"], facts))


if __name__ == "__main__":
    main()
