"""Export a task to lm-eval (EleutherAI's lm-evaluation-harness): YAML tasks that ask exactly what the suite asks."""

import inspect
import shlex
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ocl_bench.errors import OclBenchError
from ocl_bench.files import files_atomic, to_json_lines, write_atomic
from ocl_bench.score import text
from ocl_bench.score.metrics import METRICS, Metric, TextFunction
from ocl_bench.tasks.records import Record
from ocl_bench.tasks.schema import Task

SCORING = "ocl_metrics"
BATCH_SIZE = 64  # prompts at a time; lm-eval takes one if it is not told


class _Function(str):
    """A Python function beside the YAML file, as lm-eval names one."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def export(task: Task, records: Sequence[Record], folder: Path, relative: bool = False) -> dict[str, int]:
    """Write a task file for each subset of each evaluation set, another where there are options, and a group of all.

    `lm-eval run --include_path FOLDER --tasks ocl_TASK` asks them. The metrics that are of the
    generated text alone are computed by a copy of their functions, so lm-eval needs nothing of the suite.

    Args:
        task: the task.
        records: its dataset for a seed.
        folder: where the files go.
        relative: name data by paths relative to `folder`, from where lm-eval has then to be run.

    Returns:
        lm-eval's name of each task → questions in it.

    Raises:
        OclBenchError: if the questions are pictures, a metric's function cannot travel, or the files cannot be
            written.
    """
    if any(record.picture for record in records):
        raise OclBenchError(f"task '{task.task}' shows pictures, and lm-eval's language models read text.")
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.split == "test":
            by_task[_task_name(task, record)].append(record)
    counts: dict[str, int] = {}
    metrics = _text_metrics([record for asked in by_task.values() for record in asked])
    scoring, group = _scoring(metrics), f"ocl_{task.task}"
    with files_atomic(folder) as inside:
        for name, asked in by_task.items():
            counts[name] = len(asked)
            data = Path("data", f"{name}.jsonl")
            write_atomic(inside / data, to_json_lines(map(_row, asked)))
            location = data if relative else (folder / data).absolute()
            _write(inside / f"{name}.yaml", _task(task, name, asked, location, metrics))
            if all(one.options for one in asked):
                counts[f"{name}_choice"] = len(asked)
                _write(inside / f"{name}_choice.yaml", _choice_task(task, f"{name}_choice", asked, location))
        _write(inside / f"_{group}.yaml", {"group": group, "task": list(counts), "metadata": {"version": task.version}})
        write_atomic(inside / f"{SCORING}.py", scoring)
    return counts


def lm_eval_command(task: Task, folder: Path) -> str:
    """What has lm-eval ask an exported task of a checkpoint CKPT, in batches as large as `ocl-bench eval` takes."""
    words = ["lm-eval", "run", "--model", "hf", "--model_args", "pretrained=CKPT", "--batch_size", str(BATCH_SIZE)]
    return shlex.join([*words, "--tasks", f"ocl_{task.task}", "--include_path", str(folder)])


def _row(record: Record) -> dict[str, Any]:
    row: dict[str, Any] = {"id": record.id, "prompt": record.prompt, "answers": record.answers, "entity": record.entity}
    if record.options:  # with their end, whose probability counts as it does here
        row["choices"] = [f"{option}\n" for option in record.options]
        row["right"] = record.options.index(record.answers[0])
    return row


def _task_name(task: Task, record: Record) -> str:
    asked = [] if record.set == "qa" else record.set.split("/")
    return "_".join(["ocl", task.task, record.subset, *asked])


def _task(
    task: Task, name: str, asked: Sequence[Record], data: Path, metrics: Mapping[str, tuple[Metric, TextFunction]]
) -> dict[str, Any]:
    return _of_data(task, name, asked, data) | {
        "output_type": "generate_until",
        "doc_to_target": "{{answers[0]}}",
        "generation_kwargs": {
            "until": ["\n"],
            "max_gen_toks": task.evaluate.max_new_tokens,
            "do_sample": False,
            "temperature": 0.0,
        },
        "process_results": _Function(f"{SCORING}.process_results"),
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": metric.better == "higher"}
            for name, (metric, _) in metrics.items()
        ],
    }


def _choice_task(task: Task, name: str, asked: Sequence[Record], data: Path) -> dict[str, Any]:
    """The same questions, answered by the most likely option: lm-eval's `acc` is the metric `choice`."""
    return _of_data(task, name, asked, data) | {
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "right",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _of_data(task: Task, name: str, asked: Sequence[Record], data: Path) -> dict[str, Any]:
    """What a task says of its data."""
    return {
        "task": name,
        "tag": ["ocl", f"ocl_{asked[0].kind}"],
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": " ",
        "num_fewshot": 0,
        "metadata": {"version": task.version},
    }


def _text_metrics(records: Sequence[Record]) -> dict[str, tuple[Metric, TextFunction]]:
    """lm-eval's name, which is the function's, → a metric of the generated text alone that the questions need."""
    needed = (one for one in METRICS.values() if any(one.needs(record) for record in records))
    return {one.text.__name__: (one, one.text) for one in needed if one.text is not None}


def _scoring(metrics: Mapping[str, tuple[Metric, TextFunction]]) -> str:
    """The module that computes them: the suite's own functions, further ones, and what lm-eval calls."""
    functions = {name: function for name, (_, function) in metrics.items()}
    parts = [inspect.getsource(text)]
    parts += [_source(function) for function in functions.values() if inspect.getmodule(function) is not text]
    calls = "".join(f'        "{name}": {name}(results[0], doc["answers"]),\n' for name in functions)
    parts.append(f'''def process_results(doc, results):
    """The metrics as lm-eval asks for them: of a document's `answers` and of what the model generated."""
    return {{
{calls}    }}
''')
    return "\n\n".join(parts)


def _source(function: TextFunction) -> str:
    used = inspect.getclosurevars(function)
    left_behind = [name for name in (*used.globals, *used.nonlocals) if not hasattr(text, name)]
    if left_behind:
        raise OclBenchError(
            f"metric function '{function.__name__}' uses '{left_behind[0]}', which does not travel with it to lm-eval; "
            "define or import it within the function."
        )
    return textwrap.dedent(inspect.getsource(function))


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))
