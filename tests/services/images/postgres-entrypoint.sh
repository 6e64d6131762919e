#!/bin/sh
# Stand-in for the entrypoint of the official PostgreSQL image, with what Fleet's compose.yaml asks of it:
# POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB, PGDATA; the first start makes the cluster,
# the user and the database, behind a socket only; afterwards the server listens for everybody with the password.
set -e
if [ "$1" != postgres ]; then
    exec "$@"
fi
if [ "$(id -u)" = 0 ]; then
    # Secrets are read as root, before the privileges go.
    if [ -n "$POSTGRES_PASSWORD_FILE" ]; then
        POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
        export POSTGRES_PASSWORD
        unset POSTGRES_PASSWORD_FILE
    fi
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 700 "$PGDATA"
    chown -R postgres:postgres "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups -- "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?the first start needs POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE}"
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    initdb --username="$user" --pwfile="$password" --auth-local=trust --auth-host=scram-sha-256 \
        --no-locale --encoding=UTF8 --no-sync --pgdata="$PGDATA"
    rm "$password"
    printf 'host all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses=''" start
    if [ "$database" != postgres ]; then
        psql --username="$user" --dbname=postgres --set=ON_ERROR_STOP=1 --set=name="$database" <<'SQL'
CREATE DATABASE :"name";
SQL
    fi
    pg_ctl --wait --mode=fast stop
fi
unset POSTGRES_PASSWORD
exec "$@" -c listen_addresses='*'
