# The jobs as an image.
#
#   docker build --tag preference-pipeline .
#   docker run --rm --init --gpus all --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#       --volume "$PWD:/workspace" preference-pipeline run --config pipeline.yaml
#
# Paths in the configuration are relative to /workspace; everything that is written goes there or to /tmp, models that
# come from the Hub to /workspace/.cache/huggingface. `docker stop --time 120` gives a job time to save.
#
# Why a plain Python and not nvidia/cuda: torch's wheels bring CUDA, cuDNN and NCCL as Python packages, and the NVIDIA
# container toolkit mounts the driver of the host. A CUDA base would carry the same libraries twice, some GB unused.
#
# The base is pinned by tag. To pin it by digest too, so that it cannot change under its name, ask for the digest with
#   docker buildx imagetools inspect python:3.12.12-slim-bookworm
# and write it behind the tag: python:3.12.12-slim-bookworm@sha256:...
FROM python:3.12.12-slim-bookworm AS base

# The dependencies alone, read from pyproject.toml: while this list is the same, the layer with torch is reused.
FROM base AS requirements
COPY pyproject.toml /
RUN python -c "import tomllib; print(*tomllib.load(open('/pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /requirements.txt

FROM base AS wheel
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM base
LABEL org.opencontainers.image.title="offline-preference-pipeline" \
      org.opencontainers.image.description="Two-phase offline preference optimisation: score the reference once, train only the policy, gate on held-out pairs." \
      org.opencontainers.image.licenses="Apache-2.0"

RUN --mount=type=bind,from=requirements,source=/requirements.txt,target=/requirements.txt \
    pip install --no-cache-dir --root-user-action=ignore --requirement /requirements.txt

RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip install --no-cache-dir --root-user-action=ignore --no-deps /wheels/*.whl

# HOME is /tmp, so that any --user works, with or without an account, and a read-only root too.
RUN useradd --uid 1000 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin pipeline \
    && install --directory --owner=1000 --group=1000 /workspace
ENV HOME=/tmp \
    USER=pipeline \
    HF_HOME=/workspace/.cache/huggingface \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
WORKDIR /workspace
USER 1000:1000

STOPSIGNAL SIGTERM
ENTRYPOINT ["pipeline"]
CMD ["--help"]
