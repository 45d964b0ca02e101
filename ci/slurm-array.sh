#!/usr/bin/env bash
# Scenarios as a Slurm job array, a task a shard, and their merge as a job after it.
#
#   ci/slurm-array.sh N OUT LABEL [OPTION of mpbench run...] FILE|DIR...
#
# OUT is a folder that all nodes see: OUT/shards has a database for each shard, OUT/logs what the jobs say, and the merge
# leaves OUT/mpbench.db, OUT/comment.md and OUT/report. Partition, account, time limit, memory and GPUs are sbatch's own
# variables (SBATCH_PARTITION, SBATCH_TIMELIMIT, SBATCH_GRES ...); the CPUs of a task are MPBENCH_CPUS (default 1), all
# of which it uses. MPBENCH_CACHE may name a folder of the node: then each node makes its own references.
#
# A task may be cut off at any moment: requeued, by Slurm or by hand, it goes on in its own database with what is not on
# record yet. A minute before its time is up it stops between two records and requeues itself, as long as that brings it
# on. The merge takes what is there and fails when a shard is missing. LABEL tells runs in one OUT apart; submitting the
# same again goes on, too.
set -euo pipefail

# sbatch runs a copy of this file: where the checkout is, and what to do, are arguments.
task() {
    local checkout=$1 n=$2 out=$3 label=$4 pid="" status=0 again=no before after
    local prefix=$out/shards/run db
    db=$prefix-$SLURM_ARRAY_TASK_ID-of-$n.db
    # shellcheck disable=SC2317 # called by the traps
    stop() { [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null || true; }
    trap 'again=yes; stop' USR1 # its time is nearly up
    trap stop TERM              # cancelled, or preempted: then Slurm requeues it
    before=$(finished "$db")
    echo "shard $SLURM_ARRAY_TASK_ID/$n, restart ${SLURM_RESTART_COUNT:-0}, $before cells on record"
    "$checkout/ci/nightly" shard "$SLURM_ARRAY_TASK_ID/$n" "$prefix" --label "$label" \
        --threads "${SLURM_CPUS_PER_TASK:-1}" "${@:5}" &
    pid=$!
    # A trapped signal ends wait, and the program, which records what it has, must still be waited for.
    while wait "$pid" && status=0 || status=$?; kill -0 "$pid" 2>/dev/null; do :; done
    after=$(finished "$db")
    if [ "$again" = yes ] && [ "$after" -gt "$before" ]; then
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    fi
    exit "$status"
}

# Cells on record; 0 where there is no database yet.
finished() {
    local n=0
    [ ! -s "$1" ] || n=$(sqlite3 "$1" "SELECT count(*) FROM cell WHERE status NOT IN ('running', 'interrupted')") || n=0
    echo "$n"
}

submit() {
    local checkout n=$1 out=$2 label=$3 name common array merge
    checkout=$(cd "$(dirname "$0")/.." && pwd)
    mkdir -p "$out/shards" "$out/logs"
    out=$(cd "$out" && pwd)
    name=${out//%/%%} # in --output, % begins a field
    common=(--parsable --open-mode=append --job-name=mpbench)
    array=$(sbatch "${common[@]}" --array="1-$n" --requeue --signal=B:USR1@60 --cpus-per-task="${MPBENCH_CPUS:-1}" \
        --output="$name/logs/%a.log" "$checkout/ci/slurm-array.sh" task "$checkout" "$n" "$out" "$label" "${@:4}")
    merge=$(sbatch "${common[@]}" --dependency="afterany:${array%%;*}" --output="$name/logs/merge.log" \
        "$checkout/ci/slurm-array.sh" merge "$checkout" "$out" "$label" "$out/shards/run")
    echo "array ${array%%;*} of $n shards, merge ${merge%%;*}; results go to $out"
}

case ${1:-} in
task) task "${@:2}" ;;
merge) exec "$2/ci/nightly" merge "${@:3}" ;;
"" | *[!0-9]* | 0*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
*)
    [ $# -ge 4 ] || { "$0"; exit 2; }
    submit "$@"
    ;;
esac
