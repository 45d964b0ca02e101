/* What the process of a cell says of its memory, stage by stage: events "bytes" (record.h). */
#ifndef MP_HARNESS_ENGINES_NATIVE_MEMORY_H
#define MP_HARNESS_ENGINES_NATIVE_MEMORY_H

#include "pipelines/common/pipeline.h"

/* The process's own peak, which the kernel keeps; a stage begins by setting it back. */
typedef struct mp_rss_meter {
    int status, clear; /* files of /proc, -1: not to be had */
    size_t before;     /* peak when the stage began */
    size_t highest;    /* of all stages */
} mp_rss_meter;

void mp_rss_open(mp_rss_meter *m);
void mp_rss_close(mp_rss_meter *m);
void mp_rss_begin(mp_rss_meter *m);
/* Most bytes since mp_rss_begin.  Where the kernel does not set its mark back: those of now, unless
 * the mark has risen. */
size_t mp_rss_peak(mp_rss_meter *m);
/* Most bytes since mp_rss_open. */
size_t mp_rss_highest(mp_rss_meter *m);

/* Tells user one number: what it counts (record.c has the names), of which module. */
typedef void mp_tell_bytes(void *user, const char *of, const char *module, size_t bytes);

/* At the end of a stage: the weights of each component, the threads' scratch, and whose activations
 * made the pool's peak.  pages: also which of the weights' pages are in memory. */
void mp_stage_memory_tell(const mp_ctx *c, const mp_pipeline_def *p, const void *open,
                          const char *stage, bool pages, mp_tell_bytes *tell, void *user);

#endif
