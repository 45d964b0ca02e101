#!/usr/bin/env bash
# Breaks a copy of the change points in one place at a time: each time a test must fail.
# Usage: tests/results/mutate_change_points.sh; needs the libraries of ci/setup.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
survivors=0 count=0

build() { # the test with the sources of a folder
    cc -std=gnu11 -O1 -ffp-contract=off -I. "-DMP_FIXTURES=\"$PWD/tests/fixtures\"" -o "$1/test" \
        tests/results/test_change_points.c "$1"/change_points*.c results/statistics.c \
        kernels/core/memory.c kernels/core/status.c -lcmocka -ljansson -lgsl -lgslcblas -lm
}

# WHAT FILE SED-EXPRESSION
mutate() {
    rm -rf "$work/m" && mkdir "$work/m" && cp results/change_points*.c "$work/m"
    sed -i "$3" "$work/m/$2"
    count=$((count + 1))
    if cmp -s "results/$2" "$work/m/$2"; then
        echo "NOT APPLIED  $1"
        survivors=$((survivors + 1))
    elif ! build "$work/m" 2>"$work/log"; then
        echo "NO PROGRAM   $1: $(head -1 "$work/log")"
        survivors=$((survivors + 1))
    elif timeout 60 "$work/m/test" >"$work/log" 2>&1; then
        echo "SURVIVED     $1"
        survivors=$((survivors + 1))
    else
        echo "killed       $1 ($(grep -c '^\[  FAILED  \] test' "$work/log" || true) lines)"
    fi
}

otava=change_points_otava.c judge=change_points_judge.c trend=change_points_trend.c main=change_points.c
mkdir "$work/m" && cp results/change_points*.c "$work/m"
build "$work/m" && "$work/m/test" >/dev/null 2>&1 || { echo "the tests fail without a mutation"; exit 1; }

mutate "otava: no merge step" $otava 's/for (int at; count \&\& /for (int at; count < 0 \&\& /'
mutate "otava: p compared the other way" $otava 's/p <= p))/p > p))/'
mutate "otava: < for <= in the split" $otava 's/\.p <= p))/.p < p))/'
mutate "otava: ddof 1" $otava 's|sqrt(sum(x, n, &centre) / (double)n)|sqrt(sum(x, n, \&centre) / (n > 1 ? (double)(n - 1) : 1.0))|'
mutate "otava: of equal splits the last" $otava 's/if (q > best.q || (q == best.q && start + n < best.index))/if (q >= best.q)/'
mutate "otava: of equal splits the first column" $otava 's/ || (q == best.q && start + n < best.index)//'
mutate "otava: of equal intervals the last" $otava 's/splits\[i\]\.q > r->splits\[best\]\.q/splits[i].q >= r->splits[best].q/'
mutate "otava: step of a whole window" $otava 's|start += last > o->window / 2 ? last : o->window / 2|start += last > o->window ? last : o->window|'
mutate "otava: windows do not start at a change" $otava 's|start += last > o->window / 2 ? last : o->window / 2|start += o->window / 2|'
mutate "otava: no lenient p" $otava 's/o->p < 0.05 ? o->p \* 10/o->p < 0.05 ? o->p/'
mutate "otava: merge measures the left neighbour" $otava 's/measure_again(x, n, c, at + 1, count)/if (at) measure_again(x, n, c, at - 1, count)/'
mutate "otava: the smallest p is dropped" $otava 's/if (c\[i\]\.p > c\[at\]\.p)/if (c[i].p < c[at].p)/'
mutate "otava: of equal p the last is dropped" $otava 's/if (c\[i\]\.p > c\[at\]\.p)/if (c[i].p >= c[at].p)/'
mutate "otava: magnitude ignored" $otava 's/magnitude(&c\[at\]) > o->magnitude ? -1 : at/-1/'
mutate "otava: magnitude of one side" $otava 's/return fmax(relative(c->centre_before, c->centre_after),/return fmin(relative(c->centre_before, c->centre_after),/'
mutate "otava: sums one by one" $otava 's/n >= LANES) {/n < 0) {/'
mutate "otava: the split is that of two samples" $otava 's/return a - b - c;/return a - b;/'
mutate "judge: places ignored" $judge 's/places \* gsl/gsl/'
mutate "judge: ddof 0" $judge 's|mean_b)) / (n - 2)|mean_b)) / n|'
mutate "judge: correlation ignored" $main 's/\* shrink, 0), 0.9)/* 0, 0), 0.9)/'
mutate "judge: shared part forgotten" $judge 's/ - 2 \* shared//'
mutate "judge: freedom of independent points" $judge 's|n \* (1 - rho \* rho) / (1 + rho \* rho) - 2|n - 2|'
mutate "judge: min_segment ignored by the loyal ones" $judge 's/< min_segment/< 1/'
mutate "judge: ranks not asked" $judge 's/\*yes = ranks <= p;/*yes = true;/'
mutate "judge: ranks of a few points are enough" $judge 's|/ 0.05 \* p|* 0|'
mutate "judge: apart when they touch" $judge 's/most_a < least_b || most_b < least_a/true/'
mutate "judge: effect from either" $main 's/fmax(w->o->floor, w->o->effect/fmin(w->o->floor, w->o->effect/'
mutate "judge: floor not scaled" $main 's/ldexp(least, -w->exponent)/least/'
mutate "interval: one difference further in" $judge 's/n_a \* n_b \/ 2 - half))/n_a * n_b \/ 2 - half) + 1)/'
mutate "interval: narrow" $judge 's/1\.96/1.0/'
mutate "interval: not widened to the medians" $main 's/c->low = fmin(ldexp(c->low, w->exponent), shift)/c->low = ldexp(c->low, w->exponent)/'
mutate "partition: min_segment ignored" $main 's/s <= e - w->shortest; s++) {/s <= e - 1; s++) {/'
mutate "partition: no penalty" $main 's/penalty = 2 \* sigma/penalty = 0 * sigma/'
mutate "partition: penalty of 50" $main 's/penalty = 2 \* sigma/penalty = 50 * sigma/'
mutate "partition: spikes stay" $main 's/fmin(fmax(w->y\[i\], middle - 3 \* sigma), middle + 3 \* sigma)/w->y[i]/'
mutate "partition: deviation of constants is 0" $main 's/upper > 0 ? upper \/ quartile : .*;/upper \/ quartile;/'
mutate "prune: compared the other way" $main 's/w->p\[i = least_sure(w)\] > w->o->p/w->p[i = least_sure(w)] < w->o->p/'
mutate "prune: the surest is dropped" $main 's/w->p\[i\] > w->p\[worst\] ? i/w->p[i] < w->p[worst] ? i/'
mutate "prune: neighbours not judged again" $main 's/if (judge_range(w, i - 1, i, \*rho))/if (0)/'
mutate "prune: regimes not split again" $main 's/code = code ? code : split_again(w, rho);//'
mutate "trend: never" $trend 's/return left > 0 \&\&/return false \&\&/'
mutate "trend: several steps are easily a ramp" $trend 's/BEATS_SEVERAL = 0/BEATS_SEVERAL = -120/'
mutate "trend: one step is easily a ramp" $trend 's/BEATS_ONE = 10/BEATS_ONE = -10/'
mutate "trend: ends swapped" $trend 's/\.centre_after = r->level + r->rise/.centre_after = r->level - r->rise/'
mutate "trend: line off by one" $trend 's/(double)(first - 1) \* (s->sum/(double)(first) * (s->sum/'
mutate "scale: about the first value" $main 's/isnan(w->origin = mp_median(w->x, w->n))/isnan(w->origin = w->x[0])/'
mutate "scale: not by a power of two" $main 's/w->y\[i\] = ldexp(w->y\[i\], -down);/w->y[i] = w->y[i] \/ most;/'

echo "$count mutations, $survivors not killed"
[ "$survivors" -eq 0 ]
