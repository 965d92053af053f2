"""Ask any model of lm-eval (hf, vllm, API models, …) the suite's questions, through lm-eval's `LM` interface."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from ocl_bench.errors import OclBenchError, did_you_mean, first_clause
from ocl_bench.evaluate.answers import Answer, make_answer
from ocl_bench.evaluate.engines import EngineRecord
from ocl_bench.tasks.records import Record, answer_text


def parse_lm_eval_args(text: str) -> dict[str, Any]:
    """Read the text of `--model_args` of `ocl-bench eval` as lm-eval reads its own. Only the command line does.

    Raises:
        OclBenchError: for a pair that is none, which lm-eval would pass over.
    """
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, equals, _ = pair.partition("=")
        if not equals or not key.strip():
            raise OclBenchError(f"--model_args {pair}: write it as key=value, such as dtype=bfloat16.")
    from lm_eval.utils import simple_parse_args_string

    return dict(simple_parse_args_string(text))


class LmEvalModel:
    """A model of lm-eval.

    Args:
        name: lm-eval's name of the kind of model, such as hf.
        checkpoint: a folder or hub id; for API models, the server's name of the model.
        model_args: further arguments, lm-eval's own.
        batch_size: prompts at a time.
        device: for models that take one.

    Raises:
        OclBenchError: if there is no such kind of model, or it cannot be made of these arguments.
    """

    def __init__(
        self, name: str, checkpoint: str, model_args: Mapping[str, Any], batch_size: int, device: str | None
    ) -> None:
        from lm_eval.api.registry import get_model, model_registry
        from lm_eval.models.api_models import TemplateAPI

        if name not in model_registry:
            raise OclBenchError(f"--lm_eval_model {name}: unknown; {did_you_mean(name, model_registry)}")
        self.name = name
        try:
            kind = get_model(name)
            key = "model" if issubclass(kind, TemplateAPI) else "pretrained"
            args = {key: checkpoint, **model_args}
            self.model = kind.create_from_arg_obj(args, {"batch_size": batch_size, "device": device})
        except Exception as error:  # a model of lm-eval may raise anything
            raise OclBenchError(f"--lm_eval_model {name}: it cannot be loaded ({first_clause(error)}).") from None

    @property
    def record(self) -> EngineRecord:
        """What the result says of this engine."""
        dtype = getattr(getattr(self.model, "model", None), "dtype", None)
        return EngineRecord(
            name=f"lm-eval {self.name}",
            version=metadata.version("lm-eval"),
            dtype="unknown dtype" if dtype is None else str(dtype).removeprefix("torch."),
        )

    def ask(self, records: Sequence[Record], max_new_tokens: int) -> list[Answer]:
        """Answer test records: log-likelihoods of accepted answers and options, a greedy answer up to the newline.

        Args:
            records: what to ask.
            max_new_tokens: length limit of a generated answer.

        Raises:
            OclBenchError: if the model cannot do either, as chat APIs, which give no log-likelihoods.
        """
        from ocl_bench.evaluate.options import choose

        continuations = [
            (record.prompt, answer_text(text)) for record in records for text in (*record.answers, *record.options)
        ]
        options = {"until": ["\n"], "max_gen_toks": max_new_tokens, "do_sample": False, "temperature": 0.0}
        prompts = [(record.prompt, dict(options)) for record in records]
        try:
            forced = iter(self.model.loglikelihood(_instances("loglikelihood", continuations)))
            texts = self.model.generate_until(_instances("generate_until", prompts))
        except Exception as error:  # a server, or a model of lm-eval, may raise anything
            raise OclBenchError(
                f"--lm_eval_model {self.name}: it gives no log-likelihoods or no answers ({first_clause(error)})."
            ) from None
        answers = []
        for record, text in zip(records, texts, strict=True):
            scores = [next(forced) for _ in record.answers]
            logprob, generated = min(0.0, float(scores[0][0])), text.partition("\n")[0].strip()
            hit = any(bool(greedy) for _, greedy in scores)
            likely = [float(next(forced)[0]) for _ in record.options]
            choice = choose(likely, record.options.index(record.answers[0])) if likely else None
            answers.append(make_answer(record.id, hit, logprob, generated, choice))
        return answers


def _instances(kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, one, number) for number, one in enumerate(arguments)]
