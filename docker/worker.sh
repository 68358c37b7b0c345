#!/bin/sh
# tune-worker as a container: Docker restarts whatever ends with another code than 0, and so should only be told of
# ends that a restart can mend. 0: the study is done. 75: somebody asked the worker to suspend. 2: it would fail again.
# Usage: docker-worker [tune-worker's options]
worker=
stopping=
stop() {
    stopping=yes
    [ -z "$worker" ] || kill -TERM "$worker" 2>/dev/null
}
trap stop TERM INT
tune-worker "$@" &
worker=$!
[ -z "$stopping" ] || stop # asked before there was a worker to ask
wait "$worker"
code=$?
while kill -0 "$worker" 2>/dev/null; do # a signal ended the wait, not the worker
    wait "$worker"
    code=$?
done
case $code in
2 | 75) echo "tune-worker ended with exit code $code: not restarted" && exit 0 ;;
*) exit "$code" ;;
esac
