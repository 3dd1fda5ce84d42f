# One image for every process; docker-compose.yml says which one a container runs.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# A named volume mounted there for the first time takes over owner and mode, so the process can write to it.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin foldex \
    && install --directory --owner foldex --group foldex --mode 0700 /var/lib/foldex \
    && install --directory --owner foldex --group foldex --mode 0700 /var/lib/foldex-snapshots \
    && install --directory --owner foldex --group foldex --mode 0700 /var/lib/foldex-archive

WORKDIR /opt/foldex
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY events ./events
COPY exchange ./exchange
RUN pip install --constraint constraints.txt .

USER foldex
WORKDIR /var/lib/foldex
CMD ["foldex", "--help"]
