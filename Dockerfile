# Two images of one source:
#
#   docker build --target service -t stillhouse-service .   the API, the migrations, the command line
#   docker build --target worker  -t stillhouse-worker  .   the worker, with PyTorch
#
# Dependencies and source are installed apart and copied one over the other, so that a changed line of source makes a layer
# of a megabyte again and not one of gigabytes. Nothing that installs or compiles is in what is copied.
#
# PyPI's build of PyTorch for Linux on x86-64 brings CUDA with it; a host needs the driver and the NVIDIA container toolkit.
#
# Build arguments: EXTRAS (service,s3 and worker,s3 add artifacts in a bucket); PIP_INDEX_URL and PIP_EXTRA_INDEX_URL, which
# pip reads from the environment, for a company's mirror or PyTorch's smaller builds without CUDA. Each stage that runs pip
# declares them, because not every builder hands a stage's arguments on to those that are built on it.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
# pip stays out of the environment that it fills: PIP_PYTHON tells it where that is.
RUN python -m venv --without-pip /opt/stillhouse
ENV PIP_PYTHON=/opt/stillhouse/bin/python
WORKDIR /source
COPY constraints.txt pyproject.toml ./


# An empty package stands in for the source, so that these layers last until the dependencies change.
FROM build AS dependencies
RUN mkdir migrations service worker \
    && touch LICENSE README.md migrations/__init__.py service/__init__.py worker/__init__.py


FROM dependencies AS service-dependencies
ARG EXTRAS=service
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install -c constraints.txt ".[$EXTRAS]" \
    && python -m pip uninstall --yes stillhouse


FROM dependencies AS worker-dependencies
ARG EXTRAS=worker
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install -c constraints.txt ".[$EXTRAS]" \
    && python -m pip uninstall --yes stillhouse


FROM build AS application
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY LICENSE README.md ./
COPY migrations migrations
COPY service service
COPY worker worker
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install -c constraints.txt --no-deps .


FROM python:3.11-slim-bookworm AS runtime
# A fixed number, because volumes remember their owner by it.
RUN groupadd --gid 10001 stillhouse \
    && useradd --uid 10001 --gid stillhouse --home-dir /var/lib/stillhouse --no-create-home --shell /usr/sbin/nologin stillhouse \
    && install --directory --owner stillhouse --group stillhouse \
        /var/lib/stillhouse /var/lib/stillhouse/scratch /var/lib/stillhouse/store
ENV PATH=/opt/stillhouse/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STILLHOUSE_SCRATCH=/var/lib/stillhouse/scratch \
    HF_HOME=/var/lib/stillhouse/scratch/huggingface \
    STILLHOUSE_STORE=file:///var/lib/stillhouse/store
LABEL org.opencontainers.image.title="Stillhouse" \
    org.opencontainers.image.description="Distils large PyTorch models into small ones on GPUs that a team shares" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0"
VOLUME ["/var/lib/stillhouse/scratch", "/var/lib/stillhouse/store"]
WORKDIR /var/lib/stillhouse
# By number: Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["stillhouse"]


FROM runtime AS service
COPY --from=service-dependencies /opt/stillhouse /opt/stillhouse
COPY --from=application /opt/stillhouse /opt/stillhouse
EXPOSE 8321
# Whether the process answers, not whether the database does: restarting the API would not bring a database back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "-c", "\
import http.client, sys; \
api = http.client.HTTPConnection('127.0.0.1', 8321, timeout=4); \
api.request('GET', '/healthz'); \
sys.exit(api.getresponse().status != 200)"]
CMD ["serve", "--host", "0.0.0.0"]


# No HEALTHCHECK: a worker proves itself by its leases, and the jobs of one that hangs go to another when they end.
FROM runtime AS worker
# "utility" is nvidia-smi, which the worker asks what GPUs there are.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=worker-dependencies /opt/stillhouse /opt/stillhouse
COPY --from=application /opt/stillhouse /opt/stillhouse
CMD ["worker"]
