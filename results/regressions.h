/* What changed over the runs of a database, and what became of it. */
#ifndef MP_RESULTS_REGRESSIONS_H
#define MP_RESULTS_REGRESSIONS_H

#include <stdio.h>

#include "results/change_points.h"
#include "results/history.h"
#include "results/table.h"

typedef enum mp_finding_kind {
    MP_FINDING_STEP,    /* another level, by statistics */
    MP_FINDING_TREND,   /* a ramp */
    MP_FINDING_EXACT,   /* other bits or drift of a deterministic cell: needs no statistics */
    MP_FINDING_OUTCOME, /* newly failing, or ended otherwise */
} mp_finding_kind;
extern const char *const mp_finding_kind_names[]; /* "step", "trend", "exact", "outcome" */

typedef enum mp_finding_state {
    MP_FINDING_DETECTED, /* too new to be sure: no alarm yet */
    MP_FINDING_CONFIRMED,
    MP_FINDING_ACKNOWLEDGED, /* `mpbench ack` */
    MP_FINDING_FIXED,        /* back where it was */
    MP_FINDING_WITHDRAWN,    /* with more data, it is none */
} mp_finding_state;
extern const char *const mp_finding_state_names[];

typedef struct mp_finding {
    int64_t id; /* in the database; 0: not on record */
    mp_finding_kind kind;
    mp_finding_state state;
    int subject;        /* index into the history */
    int series;         /* index; -1: of the kinds exact and outcome */
    const char *metric; /* "seconds"; "outputs", "outcome" */
    int before, after;  /* observations: the last of the old regime, the first of the new */
    int fixed;          /* observation that brought it back; -1: none */
    double value_before, value_after; /* centres of the regimes; NaN: no numbers */
    double low, high; /* 95 % interval of value_after - value_before; NaN: unknown */
    double p;         /* NaN: exact */
    double q;         /* p after false-discovery control; NaN: exact */
    int direction;    /* 1: better, -1: worse, 0: neither, but other */
    bool open;        /* an alarm: confirmed, and not better */
    double severity;  /* for the order: how much worse, relative */
    char *what;       /* "latent_rel_l2 0.0144 -> 0.0151 (+4.9 %), other bits" */
    char *why;        /* of an acknowledgement; NULL: none */
} mp_finding;

typedef struct mp_findings {
    mp_finding *items; /* open ones first, the worst first */
    int count, room;
    int judged, too_short; /* series with noise: looked at; too short for that */
    int shortest;          /* one of the latter, index into the history; -1: none */
    int least;             /* points that a series must have */
    int open;
    int64_t *withdrawn; /* ids of those on record that with more data are none */
    int withdrawn_count, withdrawn_room;
} mp_findings;

typedef struct mp_regression_options {
    int min_segment;        /* points of a new level before an alarm; 0: the default, 3 */
    double false_discovery; /* share of false ones among the findings; 0: the default, 0.05 */
    bool record;            /* new findings and changed states are written to the database */
    /* Steps as Apache Otava finds them, with these options: each change point is a finding, nothing
     * else is asked.  NULL: the default mode. */
    const mp_otava_options *otava;
} mp_regression_options;

/* Series of at least two segments are judged by mp_change_points, all of them together by
 * Benjamini and Hochberg.  A deterministic cell needs no statistics: its bits and its drift are
 * held against those of the run before.  That is every cell of the native engine, and one of a
 * library whose output never changed while its versions did not.
 *
 * All findings of the history, those on record in s with their id and state. */
mp_code mp_findings_of(mp_store *s, const mp_history *h, const mp_regression_options *o,
                       mp_findings *out, mp_error *err);
void mp_findings_free(mp_findings *f);

/* The findings are known and accepted; why is kept.  siblings: also all that changed between the
 * same two runs as one of them.  *count: how many there are.  MP_EMISSING: no such finding. */
mp_code mp_findings_acknowledge(mp_store *s, const int64_t *ids, int n, bool siblings,
                                const char *why, int *count, mp_error *err);

typedef struct mp_regressions_view {
    mp_history_filter filter;
    mp_regression_options options;
    mp_format format;
    bool settled; /* text and Markdown show old findings that are no alarm, too */
} mp_regressions_view;

/* `mpbench regressions`: prints; *exit_status is 1 for an open finding, else 0. */
mp_code mp_regressions(mp_store *s, const mp_regressions_view *v, FILE *to, int *exit_status,
                       mp_error *err);

#endif
