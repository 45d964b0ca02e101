#!/usr/bin/env bash
# Includes point one way (ci/layers.txt). Usage: check_layers.sh [ROOT]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-$here/..}"
folders=()
for f in kernels pipelines results plots harness; do [ ! -d "$f" ] || folders+=("$f"); done
[ ${#folders[@]} -gt 0 ] || { echo "check_layers: no sources under $PWD" >&2; exit 2; }
found=$(find "${folders[@]}" -name '*.[ch]' -o -name '*.cpp' -o -name '*.def' | sort)
[ -n "$found" ] || { echo "check_layers: no sources under $PWD" >&2; exit 2; }
# shellcheck disable=SC2086
grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]' $found | awk -v rules="$here/layers.txt" '
function folder(path) { sub(/\/[^\/]*$/, "", path); return path }
function refuse(why) { print file ":" line ": " why; bad = 1 }
BEGIN {
    while ((getline rule < rules) > 0) {
        if (rule ~ /^#/ || rule !~ /:/) continue
        name = rule; sub(/:.*/, "", name); list = rule; sub(/^[^:]*:[ ]*/, "", list)
        if (name ~ /^@/) home[substr(name, 2)] = " " list " "; else may[name] = " " list " "
    }
}
{
    split($0, part, ":"); file = part[1]; line = part[2]; from = folder(file)
    what = $0; sub(/^[^<"]*[<"]/, "", what); sub(/[>"].*/, "", what)
    if ($0 ~ /include[[:space:]]*</) {
        for (h in home)
            if (index(what, h) == 1 && index(home[h], " " from " ") == 0)
                refuse("<" what "> belongs to" home[h] "only")
    } else if (what ~ /\.\.\//) refuse("\"" what "\": includes are relative to the root")
    else if (what !~ /\//) refuse("\"" what "\": write the path from the root")
    else {
        to = folder(what)
        rule = file in may ? file : from
        if (!(rule in may)) refuse("folder " from " has no line in ci/layers.txt")
        else if (to != from && index(may[rule], " " to " ") == 0) refuse(from " may not include " to)
    }
}
END { exit bad }'
