#!/bin/sh
# Stand-in for the entrypoint of the official Valkey image: a server that is started as root takes /data over and
# goes on as the user `valkey`; anything else runs as it is.
set -e
if [ "$1" = valkey-server ] && [ "$(id -u)" = 0 ]; then
    find . ! -user valkey -exec chown valkey:valkey '{}' +
    exec setpriv --reuid=valkey --regid=valkey --clear-groups -- "$0" "$@"
fi
umask 0077
exec "$@"
