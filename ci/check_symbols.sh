#!/usr/bin/env bash
# What the libraries may export and call. Usage: check_symbols.sh BUILD_DIR
#  - each instruction set's object exports exactly one symbol, its table
#  - nothing in kernels (but core's memory.c) or pipelines prints, allocates, exits or reads the environment
set -euo pipefail
build=$1
bad=0
refuse() { echo "check_symbols: $*" >&2; bad=1; }

objects=$(find "$build/kernels" -path '*mp_cpu_*' -name 'isa.c.o')
[ -n "$objects" ] || { echo "check_symbols: no isa.c.o under $build/kernels; build first" >&2; exit 2; }
for object in $objects; do
    isa=$(sed 's/.*mp_cpu_\([a-z0-9]*\)\.dir.*/\1/' <<<"$object")
    exported=$(nm -g --defined-only "$object" | awk '$3 !~ /^(__odr_asan|_GLOBAL|__asan)/ {print $3}' | sort -u | paste -sd' ')
    [ "$exported" = "mp_cpu_$isa" ] || refuse "$isa exports '$exported', expected 'mp_cpu_$isa' alone"
done

forbidden='printf|puts|putchar|malloc|calloc|realloc|free|exit|abort|getenv'
for object in $(find "$build/kernels" "$build/pipelines" -name '*.c.o'); do
    case $object in */core/memory.c.o) continue ;; esac
    calls=$(nm -u "$object" | awk '{print $2}' | grep -xE "$forbidden" | paste -sd' ' || true)
    [ -z "$calls" ] || refuse "${object#"$build"/} calls $calls"
done
exit $bad
