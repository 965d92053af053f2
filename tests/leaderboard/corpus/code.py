"""What would have code run, or files read, where a submission is run again or only looked at."""

import gzip
import os
from typing import Any

from corpus.attack import Attack
from corpus.changes import Act, config, manifest, tampered

CONFIG, MANIFEST = "config.json", "manifest.json"
RUNS = "from pathlib import Path; Path(__file__).with_name('ran').touch()\n"


def key(name: str, value: Any) -> Act:
    return config(lambda of: of.update({name: value}))


def model(name: str, value: Any) -> Act:
    return manifest("config", "model", "args", name, to=value)


def task(*keys: str, to: Any) -> Act:
    return manifest("config", "task", *keys, to=to)


def engine_args(**values: Any) -> Act:
    return manifest("config", "compute", "engine_args", to=values)


def brings(name: str, content: bytes | str) -> Act:
    return tampered(lambda copy: copy.write(name, content))


CODE: dict[str, tuple[Act, str]] = {
    "a class of the model's own": (key("auto_map", {"AutoConfig": "own.Config"}), r"auto_map"),
    "a class of another repository": (key("auto_map", {"AutoModel": "org/code--own.Model"}), r"auto_map"),
    "a class of the model's own, in a list of lists": (
        key("layers", [[{"auto_map": {"AutoConfig": "own.Config"}}]]), r"auto_map"
    ),
    "trust in the configuration": (key("trust_remote_code", True), r"trust_remote_code"),
    "a generation of its own": (key("custom_generate", "org/code"), r"custom_generate"),
    "attention from the hub": (key("_attn_implementation", "org/kernel:f"), r"attn_implementation"),
    "attention from the hub, for a part": (
        key("text_config", {"attn_implementation": "org/kernel"}), r"attn_implementation"
    ),
    "kernels from the hub": (key("use_kernels", True), r"kernels"),
    "a quantisation, which loads code": (key("quantization_config", {"quant_method": "own"}), r"quantization_config"),
    "an adapter": (key("peft_config", {"base_model_name_or_path": "org/x"}), r"peft_config"),
    "weights from elsewhere": (key("transformers_weights", "x.bin"), r"transformers_weights"),
    "a tokenizer by module": (key("tokenizer_class", "os.path.X"), r"tokenizer_class"),
    "a model by module": (key("architectures", ["os.system"]), r"architectures"),
    "an architecture by path": (key("model_type", "../own"), r"model_type"),
    "an architecture that there is not": (key("model_type", "evil"), r"no model can be made of it"),
    "a path": (key("vocab_file", "/etc/passwd"), r"vocab_file"),
    "a path of another system": (key("vocab_file", "\\\\host\\share"), r"vocab_file"),
    "a path from home": (key("vocab_file", "~/.netrc"), r"vocab_file|config"),
    "an activation by module": (key("hidden_act", "os.system"), r"no model can be made of it"),
    "an activation from the hub": (key("hidden_act", "org/kernel"), r"hidden_act"),
    "trust in the manifest": (model("trust_remote_code", True), r"trust_remote_code"),
    "a tokenizer from a folder": (model("tokenizer", "/tmp/code"), r"tokenizer"),
    "a tokenizer two folders up": (model("tokenizer", "../.."), r"tokenizer"),
    "a kernel as attention": (model("attn_implementation", "org/kernel"), r"attn_implementation"),
    "a revision that is a second option": (model("revision", "main,trust_remote_code=true"), r"revision"),
    "a model of the hub by branch": (manifest("model_revision", to="main"), r"model_revision"),
    "random weights that are said to be the hub's": (
        manifest("config", "model", "source", to="hub"), r"model_revision: is no commit"
    ),
    "a module for the engine": (engine_args(worker_cls="a.b.C"), r"worker_cls"),
    "an extension of the engine": (engine_args(worker_extension_cls="a.b.C"), r"worker_extension_cls"),
    "overrides for the engine": (engine_args(hf_overrides={"auto_map": {}}), r"hf_overrides"),
    "trust of the engine": (engine_args(trust_remote_code=True), r"trust_remote_code"),
    "a parser plugin for the engine": (engine_args(tool_parser_plugin="/tmp/x.py"), r"tool_parser_plugin"),
    "arguments of an engine that has none": (engine_args(max_num_seqs=4), r"engine_args|identity"),
    "a task's model by path": (task("model", to="scratch:/tmp/x"), r"config\.task\.model"),
    "a task's recipe by path": (task("recipe", "scratch", to="../x.yaml"), r"config\.task\.recipe"),
    "a task's source by path": (task("source", to="../../x"), r"config\.task"),
    "a task's data by path": (task("source_args", to={"path": "/etc/passwd"}), r"config\.task"),
    "a task of the hub's data": (task("source", to="json"), r"config\.task"),
    "a format that reads attributes": (
        task("design", "question_format", to="{question.__class__}"), r"config\.task|question_format"
    ),
    "tasks of lm-eval": (manifest("config", "also_tasks", to=["hellaswag"]), r"also_tasks"),
    "folders for lm-eval": (manifest("config", "also_path", to=["/tmp/code"]), r"also_path"),
    # files
    "weights of its own": (brings("model.safetensors", b"\0" * 100), r"model\.safetensors"),
    "a pickle": (brings("pytorch_model.bin", b"\x80\x04cos\nsystem\n(S'touch ran'\ntR."), r"pytorch_model\.bin"),
    "a tokenizer of its own": (brings("tokenizer.json", "{}"), r"tokenizer\.json"),
    "a module": (brings("own.py", RUNS), r"own\.py"),
    "a module that Python looks for": (brings("sitecustomize.py", RUNS), r"sitecustomize\.py"),
    "a module in a cell": (brings("seed-0/__init__.py", RUNS), r"__init__\.py"),
    "settings of tests": (brings("conftest.py", RUNS), r"conftest\.py"),
    "a repository": (brings(".git/hooks/post-checkout", "#!/bin/sh\ntouch ran\n"), r"post-checkout"),
    "attributes of git": (brings(".gitattributes", "* filter=x\n"), r"gitattributes"),
    "a page": (brings("index.html", "<script>alert(1)</script>"), r"index\.html"),
    "a hidden file": (brings(".samples.jsonl.gz.x", gzip.compress(b"")), r"samples"),
    "a configuration that is a link": (
        tampered(lambda copy: ((copy.path / CONFIG).unlink(), (copy.path / CONFIG).symlink_to("/etc/passwd"))),
        r"config\.json: is a link",
    ),
    "a cell that is a link": (
        tampered(lambda copy: (
            (copy.path / "seed-1").rename(copy.path.parent / "away"), (copy.path / "seed-1").symlink_to("../away")
        )),
        r"seed-1: is a link",
    ),
    "a second name of a file elsewhere": (
        tampered(lambda copy: (
            (copy.path / CONFIG).rename(copy.path.parents[4] / "own.json"),
            os.link(copy.path.parents[4] / "own.json", copy.path / CONFIG),
        )),
        r"config\.json|link",
    ),
}  # fmt: skip

# Two names of one file are what a checkout of git never has, and do no harm where files are only read.
HARMLESS = {"a second name of a file elsewhere"}
ATTACKS = [Attack("code and files", name, act, said, name not in HARMLESS) for name, (act, said) in CODE.items()]
