# ocl-bench with vLLM, for one machine with NVIDIA GPUs. CUDA's libraries come with torch; the host needs the driver and
# the NVIDIA container toolkit.
#
#   docker build --tag ocl-bench .
#   docker run --rm --gpus all --ipc host --volume "$PWD:/data" --user "$(id -u)" ocl-bench run --task cvdb --model …
FROM python:3.11.14-slim-bookworm

# Triton, which vLLM's kernels are written in, compiles them when they are first called.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/ocl-bench
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY tasks tasks
COPY ocl_bench ocl_bench
RUN pip install --no-cache-dir --constraint constraints.txt ".[vllm]"

# Caches of the hub, of kernels and of stages go into the folder that is mounted, whoever runs the container.
ENV HOME=/data HF_HOME=/data/.cache/huggingface OCL_BENCH_CACHE=/data/.cache/ocl-bench
RUN useradd --uid 1000 --home-dir /data --create-home ocl
USER 1000
WORKDIR /data
ENTRYPOINT ["ocl-bench"]
CMD ["--help"]
