#!/bin/sh
# Writes the secrets of docker-compose.yml into ./secrets. Existing secrets are kept, and so are values that an earlier
# version kept in .env.
# Only you can open the folder. The files in it are readable, because the container runs as another user.
set -eu
cd "$(dirname "$0")/.."
mkdir -p secrets
chmod 700 secrets

random() {
    head -c 32 /dev/urandom | od -An -vtx1 | tr -d ' \n'
}

write() { # name, value
    if [ ! -s "secrets/$1" ]; then
        printf '%s' "$2" >"secrets/$1"
    fi
    chmod 444 "secrets/$1"
}

value_in_env_file() { # name in .env
    [ -f .env ] && sed -n "s/^$1=//p" .env | tail -n 1
    return 0
}

env_file_or() { # name in .env, default value
    value=$(value_in_env_file "$1")
    printf '%s' "${value:-$2}"
}

write postgres_password "$(env_file_or POSTGRES_PASSWORD "$(random)")"
write redis_password "$(env_file_or REDIS_PASSWORD "$(random)")"
write dreamery_database_url "postgresql://dreamery:$(cat secrets/postgres_password)@postgres:5432/dreamery"
write dreamery_redis_url "redis://:$(cat secrets/redis_password)@redis:6379/0"
# Encrypts the session ids of the upstream accounts. If it is lost, the accounts must be entered again.
write dreamery_master_key "$(env_file_or DREAMERY_MASTER_KEY "$(random)")"
# API key of the first admin.
write dreamery_admin_key "$(env_file_or DREAMERY_ADMIN_KEY "sk-dreamery-$(random)")"
# Passwords of the user admin. An existing Grafana keeps the password of its first start: docs/deployment.md
write dreamery_flower_password "$(env_file_or DREAMERY_FLOWER_PASSWORD "$(random)")"
write grafana_password "$(random)"
write dreamery_metrics_token "$(random)"
# Only for results in an S3-compatible bucket (DREAMERY_STORAGE_URL); empty = unused.
write dreamery_s3_access_key_id "$(env_file_or DREAMERY_S3_ACCESS_KEY_ID "")"
write dreamery_s3_secret_access_key "$(env_file_or DREAMERY_S3_SECRET_ACCESS_KEY "")"
echo "Secrets are in secrets/. Back up secrets/dreamery_master_key. Admin key: $(cat secrets/dreamery_admin_key)"
