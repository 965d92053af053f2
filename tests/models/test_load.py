"""What is loaded is what was saved, to the last bit of every answer."""

from pathlib import Path
from typing import Any

import pytest

from ocl_bench.evaluate.torch_engine import TorchEngine
from ocl_bench.models.encoding import Encoder
from ocl_bench.models.load import load_model, load_tokenizer
from ocl_bench.models.spec import parse_model
from ocl_bench.tasks.records import Record


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "llama", "mamba", "t5"])
def test_a_loaded_model_gives_the_bits_of_the_model_that_was_saved(
    architecture: str, model_folder: Any, small_records: list[Record], tmp_path: Path
) -> None:
    spec = parse_model(str(model_folder(architecture)))
    tokenizer = load_tokenizer(spec, [])
    model = load_model(spec, tokenizer, seed=0).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # where torch puts what is trained
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(parse_model(str(tmp_path)), tokenizer, seed=0).eval()
    assert {parameter.data_ptr() % 64 for parameter in loaded.parameters()} == {0}
    engines = [TorchEngine(one, Encoder(tokenizer, one.config.is_encoder_decoder)) for one in (model, loaded)]
    pairs = [(record.prompt, record.completion) for record in small_records[:200]]
    first, second = (engine.forced(engine.encoder(pairs)) for engine in engines)
    assert first == second
