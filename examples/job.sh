#!/bin/sh
# A shell job under zelect run: it runs on the machine whose node is active, and on no other.
#
#     zelect run -c conf/n1.toml -- examples/job.sh /srv/shared/report     # and n2, n3, on every machine
#
# It is ended before the lease ends: TERM first, so that it can clean up, then KILL. A file with the newest
# term beside the data stops a job that was frozen in the middle (docs/fencing.md).
set -eu
out=$1
trap 'echo "$ZELECT_TERM $ZELECT_NODE ends" >> "$out.log"; exit 0' TERM

echo "$ZELECT_TERM $ZELECT_NODE begins" >> "$out.log"
while :; do
    (
        flock 9
        newest=$(cat "$out.term" 2> /dev/null || echo 0)
        if [ "$ZELECT_TERM" -lt "$newest" ]; then exit 3; fi
        echo "$ZELECT_TERM" > "$out.term"
        echo "$ZELECT_TERM $ZELECT_NODE works" >> "$out.log"
    ) 9> "$out.lock" || exit 3
    sleep 0.1
done
