/* Exact counts: a cell's generation once more under valgrind's callgrind, which counts every
 * instruction (Ir).  Two runs of the same program differ by a few in a million, on any machine and
 * however busy it is.
 *
 * A process of its own runs the cell's repro line, in a database that nobody keeps: one generation
 * on one thread, of an instruction set that valgrind knows (AVX-512 and AMX it does not). */
#ifndef MP_HARNESS_CALLGRIND_H
#define MP_HARNESS_CALLGRIND_H

#include "harness/arena.h"
#include "kernels/core/status.h"

typedef struct mp_callgrind {
    const char *valgrind; /* its path */
    const char *isa;      /* "avx2" or "base" */
    const char *folder;   /* for files of the while */
} mp_callgrind;

/* isas: what this machine runs, separated by spaces; asked: MPBENCH_ISA or NULL.  MP_EIO when there
 * is no valgrind. */
mp_code mp_callgrind_open(mp_arena *a, const char *folder, const char *isas, const char *asked,
                          mp_callgrind *out, mp_error *err);
/* Instructions of a generation of the cell that `repro` runs.  Negative: *trouble says why there
 * are none. */
double mp_callgrind_count(mp_arena *a, const mp_callgrind *g, const char *repro,
                          const char **trouble);

#endif
