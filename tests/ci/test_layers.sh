#!/usr/bin/env bash
# ci/check_layers.sh accepts this tree and refuses each of five planted violations.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$root/ci/check_layers.sh" "$root"

plant() { # plant NAME FILE LINE EXPECTED
    rm -rf "$work/tree" && mkdir -p "$work/tree/kernels/core" "$work/tree/pipelines/sana" \
        "$work/tree/results" "$work/tree/plots" "$work/tree/harness"
    echo '#include <stdint.h>' >"$work/tree/kernels/core/good.c"
    mkdir -p "$(dirname "$work/tree/$2")" && echo "$3" >"$work/tree/$2"
    if text=$("$root/ci/check_layers.sh" "$work/tree"); then
        echo "not refused: $1" >&2
        exit 1
    fi
    case $text in *"$4"*) ;; *) echo "$1: expected '$4' in: $text" >&2; exit 1 ;; esac
}
plant "kernels reach up"        kernels/core/bad.c   '#include "pipelines/sana/gemma2.h"' "may not include pipelines/sana"
plant "results know kernels"    results/bad.c        '#include "kernels/ops.h"'           "results may not include kernels"
plant "sqlite outside results"  harness/bad.c        '#include <sqlite3.h>'               "<sqlite3.h> belongs to"
plant "a parent folder"         pipelines/sana/bad.c '#include "../common/weights.h"'     "relative to the root"
plant "a bare name"             pipelines/sana/bad.c '#include "gemma2.h"'                "write the path from the root"
echo "1 tree accepted, 5 violations refused"
