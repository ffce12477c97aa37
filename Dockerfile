# The jobs as an image: for NVIDIA GPUs, and with --target cpu a smaller one without CUDA. More: docs/container.md.
#
#   docker build --tag preference-pipeline .
#   docker run --rm --gpus all --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#       --volume "$PWD:/workspace" preference-pipeline run --config pipeline.yaml
#
# Paths in the configuration are relative to /workspace; everything that is written goes there or to /tmp, models that
# come from the Hub to /workspace/.cache/huggingface. `docker stop --time 120` gives a job time to save.
#
# The bases are pinned by the digests of their indices (amd64 and arm64), so that they cannot change under their names;
# the name is for readers. Both are the digests that several other projects have written down for these names; the
# registry itself was not asked. It is by: docker buildx imagetools inspect nvidia/cuda:13.0.1-base-ubuntu24.04
#
# The smallest CUDA image makes the container toolkit refuse a driver that is too old, before a job starts; CUDA's
# libraries themselves come with torch's wheels, so a larger CUDA image would only carry them twice.
ARG GPU_BASE=nvidia/cuda:13.0.1-base-ubuntu24.04@sha256:f8ef28f579ea42a44b415d2c5d46f788e6a9b395c6c83f2929416e1fc192c143
ARG CPU_BASE=ubuntu:24.04@sha256:786a8b558f7be160c6c8c4a54f9a57274f3b4fb1491cf65146521ae77ff1dc54

FROM scratch AS source
COPY . /

# The two targets are the same lines, but for the base and the lock file. Layers from the slow to the quick: Python,
# the locked packages (gigabytes, the same until a lock file changes), the project itself.
FROM ${CPU_BASE} AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin pipeline \
    && install --directory --owner=10001 --group=10001 /workspace \
    && python3 -m venv /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH
RUN --mount=type=bind,source=requirements-cpu.lock,target=/requirements.lock \
    pip install --no-cache-dir --require-hashes --requirement /requirements.lock
# setuptools, which builds the wheel, is one of the locked packages, too.
RUN --mount=type=bind,from=source,target=/source,rw \
    pip install --no-cache-dir --no-index --no-deps --no-build-isolation /source
# HOME is /tmp, so that any --user works, with or without an account, and a read-only root too.
ENV HOME=/tmp \
    USER=pipeline \
    HF_HOME=/workspace/.cache/huggingface \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="offline-preference-pipeline" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /workspace
USER 10001:10001
STOPSIGNAL SIGTERM
# A job listens nowhere, so there is nobody to ask. What is asked: has the process used the CPU since the last time?
HEALTHCHECK --interval=5m --timeout=10s --retries=2 CMD ["sh", "-c", \
    "now=$(cut -d' ' -f14-17 /proc/1/stat); last=$(cat /tmp/.cpu-time 2>/dev/null); echo \"$now\" > /tmp/.cpu-time; test \"$now\" != \"$last\""]
ENTRYPOINT ["pipeline"]
CMD ["--help"]

FROM ${GPU_BASE} AS gpu
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin pipeline \
    && install --directory --owner=10001 --group=10001 /workspace \
    && python3 -m venv /opt/pipeline
ENV PATH=/opt/pipeline/bin:$PATH
RUN --mount=type=bind,source=requirements.lock,target=/requirements.lock \
    pip install --no-cache-dir --require-hashes --requirement /requirements.lock
RUN --mount=type=bind,from=source,target=/source,rw \
    pip install --no-cache-dir --no-index --no-deps --no-build-isolation /source
ENV HOME=/tmp \
    USER=pipeline \
    HF_HOME=/workspace/.cache/huggingface \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="offline-preference-pipeline" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /workspace
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5m --timeout=10s --retries=2 CMD ["sh", "-c", \
    "now=$(cut -d' ' -f14-17 /proc/1/stat); last=$(cat /tmp/.cpu-time 2>/dev/null); echo \"$now\" > /tmp/.cpu-time; test \"$now\" != \"$last\""]
ENTRYPOINT ["pipeline"]
CMD ["--help"]
