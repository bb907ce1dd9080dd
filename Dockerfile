# scumble serve, on the CPU. Build: docker build -t scumble .   Run: compose.yaml, or docs/service.md
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src src
# EXTRAS=serve,video,torch adds refinement; PyTorch for the CPU alone comes from its own index
ARG EXTRAS=serve,video,heif,deep
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/scumble \
    && /opt/scumble/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:3.12-slim
RUN groupadd --gid 10001 scumble \
    && useradd --uid 10001 --gid scumble --no-create-home --shell /usr/sbin/nologin scumble \
    && install -d -o scumble -g scumble /data
COPY --from=build /opt/scumble /opt/scumble
# two arenas: with one for every thread, glibc keeps what large pictures took
ENV PATH=/opt/scumble/bin:$PATH PYTHONUNBUFFERED=1 SCUMBLE_DATA=/data SCUMBLE_OFFLINE=1 HOME=/tmp MALLOC_ARENA_MAX=2
USER 10001:10001
VOLUME /data
EXPOSE 7878
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7878/readyz', timeout=4)"]
# others can reach a container, so SCUMBLE_TOKEN has to be set: without it the command says so and ends
ENTRYPOINT ["scumble", "serve", "--host", "0.0.0.0"]
