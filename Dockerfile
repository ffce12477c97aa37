# The jobs as an image for NVIDIA GPUs; it runs on a CPU too.
#
#   docker build --tag preference-pipeline .
#   docker run --rm --gpus all --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#       --volume "$PWD:/workspace" preference-pipeline run --config pipeline.yaml
#
# Paths in the configuration are relative to /workspace; everything that is written goes there or to /tmp, models that
# come from the Hub to /workspace/.cache/huggingface. `docker stop --time 120` gives a job time to save.
#
# Base: the smallest CUDA image. It makes the container toolkit refuse a driver that is too old, before a job starts;
# CUDA's libraries themselves come with torch's wheels, so a larger CUDA image would only carry them twice.
#
# The base is pinned by tag. To pin it by digest too, so that it cannot change under its name, ask for the digest with
#   docker buildx imagetools inspect nvidia/cuda:13.0.1-base-ubuntu24.04
# and write it behind the tag: nvidia/cuda:13.0.1-base-ubuntu24.04@sha256:...
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The dependencies alone, read from pyproject.toml: while this list is the same, the layer with torch is reused.
FROM base AS requirements
COPY pyproject.toml /
RUN python3 -c "import tomllib; print(*tomllib.load(open('/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /requirements.txt

FROM base AS wheel
COPY . /source
RUN python3 -m venv /build && /build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM base
LABEL org.opencontainers.image.title="offline-preference-pipeline" \
      org.opencontainers.image.description="Two-phase offline preference optimisation: score the reference once, train only the policy, gate on held-out pairs." \
      org.opencontainers.image.licenses="Apache-2.0"

RUN python3 -m venv /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH
RUN --mount=type=bind,from=requirements,source=/requirements.txt,target=/requirements.txt \
    pip install --no-cache-dir --requirement /requirements.txt

RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-deps /wheels/*.whl

# HOME is /tmp, so that any --user works, with or without an account, and a read-only root too.
RUN useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin pipeline \
    && install --directory --owner=10001 --group=10001 /workspace
ENV HOME=/tmp \
    USER=pipeline \
    HF_HOME=/workspace/.cache/huggingface \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
WORKDIR /workspace
USER 10001:10001

STOPSIGNAL SIGTERM
ENTRYPOINT ["pipeline"]
CMD ["--help"]
