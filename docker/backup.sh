#!/bin/sh
# Dumps of the database, and the way back. By itself: a dump every BACKUP_HOURS, the newest BACKUPS_KEPT of them kept.
#     backup.sh once               one dump now
#     backup.sh restore FILE       the database as it was; workers must be stopped
# PGHOST, PGUSER, PGDATABASE and PGPASSWORD say which database; BACKUPS is the folder.
set -eu
folder=${BACKUPS:-/backups}

once() {
    name="$folder/tune-$(date -u +%Y%m%dT%H%M%SZ).dump"
    # Where a failure is answered by `||`, a shell does not end at the first one by itself.
    pg_dump --format=custom --file="$name.part" || { rm -f "$name.part" && return 1; }
    mv "$name.part" "$name" || return 1 # a dump is there whole or not at all
    echo "written: $name"
    # shellcheck disable=SC2012  # names are ours
    ls -1 "$folder"/tune-*.dump | sort -r | tail -n "+$((${BACKUPS_KEPT:-28} + 1))" | while read -r old; do rm -- "$old"; done
}

case ${1:-} in
once) once ;;
restore)
    pg_restore --exit-on-error --single-transaction --clean --if-exists --no-owner --dbname="${PGDATABASE:-tune}" "$2"
    echo "restored: $2"
    ;;
"")
    trap '[ -z "${name:-}" ] || rm -f "$name.part"; exit 0' TERM INT
    while :; do
        once || echo "the dump failed; the next one is tried in ${BACKUP_HOURS:-6} h" >&2
        sleep "$((${BACKUP_HOURS:-6} * 3600))" &
        wait $!
    done
    ;;
*) echo "usage: backup.sh [once | restore FILE]" >&2 && exit 2 ;;
esac
