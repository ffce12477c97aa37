#!/bin/sh
# One night: score what is new, train, judge. Lies beside pipeline.yaml; the file `crontab` has the line that starts it.
#
# Ends with 0 where the night is done, had nothing to do, or found an earlier one still running; otherwise with the exit
# code of the job that ended it. What the jobs print goes to logs/DATE.log.
set -eu
cd "$(dirname "$0")"

PATH=$PWD/.venv/bin:$PATH   # cron sets hardly any: the folder that `pipeline` is installed in
NOTIFY=${NOTIFY:-logger}    # a command that gets one argument, the message; `logger` writes to the system log
KEEP_DAYS=30                # logs that are older go

mkdir -p logs
exec >>"logs/$(date +%F).log" 2>&1
find logs -name '*.log' -mtime "+$KEEP_DAYS" -delete

exec 9>nightly.lock         # held by this script and its jobs for as long as any of them lives
if ! flock --nonblock 9; then
    echo "$(date +%T) the night before is still running; not started"
    exit 0
fi

# Exit code 75: stopped by a signal with everything saved. The same command goes on where it stopped.
again() {
    for _ in 1 2 3; do
        code=0
        "$@" || code=$?
        [ "$code" -eq 75 ] || break
    done
    return "$code"
}

echo "$(date +%T) begins"
code=0
{
    again pipeline precompute-ref --config pipeline.yaml &&
    again pipeline train --config pipeline.yaml &&
    again pipeline eval --config pipeline.yaml
} || code=$?
echo "$(date +%T) ends with exit code $code"

case $code in
    0) exit 0 ;;
    5) message="a gate failed; work/passed stays where it was" ;;
    75) message="interrupted three times; the next night goes on" ;;
    *) message="stopped with exit code $code" ;;
esac
"$NOTIFY" "nightly: $message. See $PWD/logs" 9>&- || echo "the notification failed"
exit "$code"
