"""Does a tiny run have the same bits on every machine? `python benchmarks/digits.py [--write]`, in about two minutes.

Trains a small model under several settings of the libraries' switches, each in processes of its own, and compares the
sha256 of all weights and of all answers with those in results/digits.json, which name the processors that gave them.
With --write this processor's are written there, in place of those that it gave with other code.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "digits.json"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# setting → environment. The last asks each library for the code that every x86 processor has.
SETTINGS = {
    "as it is": ONE_THREAD,
    "MKL alike": ONE_THREAD | {"MKL_CBWR": "COMPATIBLE"},
    "MKL and ATen alike": ONE_THREAD | {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"},
    "all alike": ONE_THREAD
    | {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
RUN = """
import hashlib, sys, tempfile
from pathlib import Path
import ocl_bench
from ocl_bench.runner.manifest import hardware, read_manifest
with tempfile.TemporaryDirectory() as folder:
    run = ocl_bench.run("scratch:tiny", task="attributes", seeds=1, limit=40, output_path=folder, curves=False,
                        overrides=["source_args.num_entities=200", "recipe.epochs=[6,4]"])
    manifest = read_manifest(run.folder)
    weights = [one.weights_after for one in manifest.stages["seed-0"].values()]
    answers = [one["answers"].rows_sha256 for one in manifest.evaluations["seed-0"].values()]
    seconds = sum(one.seconds for one in manifest.stages["seed-0"].values())
print(hashlib.sha256(" ".join(weights).encode()).hexdigest(), hashlib.sha256(" ".join(answers).encode()).hexdigest(),
      f"{seconds:.1f}", manifest.versions["torch"], hardware()["processor"], sep="\\n")
"""


def measure(environment: dict[str, str]) -> dict[str, str]:
    """Weights, answers, seconds of training, torch and processor of the run under an environment."""
    done = subprocess.run(
        [sys.executable, "-c", RUN], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return dict(zip(("weights", "answers", "seconds", "torch", "processor"), done.stdout.splitlines(), strict=True))


def main() -> None:
    """Measure each setting, and say with which processors of those seen it agrees."""
    seen: list[dict[str, str]] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for setting, environment in SETTINGS.items():
        start = time.monotonic()
        one = measure(environment) | {"setting": setting}
        others = [other for other in seen if (other["setting"], other["torch"]) == (setting, one["torch"])]
        print(f"{setting}: {one['seconds']} s of training, {time.monotonic() - start:.0f} s in all, {one['processor']}")
        for other in others:
            said = {what: "the same" if other[what] == one[what] else "other" for what in ("weights", "answers")}
            print(f"    {other['processor']}: {said['weights']} weights, {said['answers']} answers")
        former = [other for other in others if other["processor"] == one["processor"]]
        seen = [other for other in seen if other not in former] + [one]
    if "--write" in sys.argv:
        RESULTS.write_text(json.dumps(seen, indent=2) + "\n")


if __name__ == "__main__":
    main()
