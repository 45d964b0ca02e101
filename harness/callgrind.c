#include "harness/callgrind.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/folders.h"
#include "harness/process.h"

/* harness/engines/native_cell.c: on at the entry of a generation, off while it is told of.  The
 * compiler may add to a name. */
#define TOGGLES                                                          \
    "'--toggle-collect=generate_once*' '--toggle-collect=seen_tensor*' " \
    "'--toggle-collect=seen_step*' '--toggle-collect=seen_stage_end*'"

mp_code mp_callgrind_open(mp_arena *a, const char *folder, const char *isas, const char *asked,
                          mp_callgrind *out, mp_error *err)
{
    const bool knows_avx2 = strstr(isas, "avx2") && (!asked || strcmp(asked, "base"));

    *out = (mp_callgrind){.valgrind = mp_find_program(a, "valgrind"),
                          .isa = knows_avx2 ? "avx2" : "base",
                          .folder = mp_arena_printf(a, "%s/callgrind", folder)};
    if (!out->valgrind)
        return mp_error_set(err, MP_EIO,
                            "--callgrind: there is no valgrind in PATH; install it (apt install "
                            "valgrind), or run without");
    return MP_OK;
}

/* The repro line without its first word, which is "mpbench", for a shell. */
static const char *command(mp_arena *a, const mp_callgrind *g, const char *repro)
{
    mp_text t = {0};

    mp_text_add(&t, "exec ");
    mp_text_shell(&t, g->valgrind);
    mp_text_printf(&t, " --quiet --tool=callgrind %s --callgrind-out-file=", TOGGLES);
    mp_text_shell(&t, g->folder);
    mp_text_printf(&t,
                   "/count.%%p /proc/%d/exe%s --repeat 1 --warmup 0 --threads 1 --set "
                   "reference=off --set timeout=240h --db ",
                   (int)getpid(), strpbrk(repro, " "));
    mp_text_shell(&t, g->folder);
    mp_text_add(&t, "/cell.db");
    return mp_text_take(&t, a);
}

typedef struct counting {
    const char *command, *isa, *log;
} counting;

/* fd stays open in the program that takes this one's place: its end is the process's. */
static int counting_main(void *user, int fd)
{
    const counting *c = user;
    const int log = open(c->log, O_WRONLY | O_CREAT | O_TRUNC, 0666);

    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    fcntl(fd, F_SETFD, 0);
    setenv("MPBENCH_ISA", c->isa, 1);
    execl("/bin/sh", "sh", "-c", c->command, (char *)NULL);
    return 127;
}

static void ignore_line(void *user, const char *line, size_t n)
{
    (void)user;
    (void)line;
    (void)n;
}

/* The totals of all processes: that of the cell counts, the others never enter a generation. */
static double sum_totals(mp_arena *a, const mp_callgrind *g)
{
    glob_t found;
    double sum = 0;

    if (glob(mp_arena_printf(a, "%s/count.*", g->folder), 0, NULL, &found))
        return 0;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *f = fopen(found.gl_pathv[i], "r");
        char line[256];
        double total;
        while (f && fgets(line, sizeof line, f))
            if (sscanf(line, "totals: %lf", &total) == 1)
                sum += total;
        if (f)
            fclose(f);
    }
    globfree(&found);
    return sum;
}

/* What was said last, for people. */
static const char *last_line(mp_arena *a, const char *path)
{
    FILE *f = fopen(path, "r");
    char line[400], last[400] = "it said nothing";

    while (f && fgets(line, sizeof line, f))
        if (line[strspn(line, " \n")]) {
            line[strcspn(line, "\n")] = '\0';
            strcpy(last, line);
        }
    if (f)
        fclose(f);
    return mp_arena_strdup(a, last);
}

double mp_callgrind_count(mp_arena *a, const mp_callgrind *g, const char *repro,
                          const char **trouble)
{
    counting c = {.command = command(a, g, repro),
                  .isa = g->isa,
                  .log = mp_arena_printf(a, "%s/log", g->folder)};
    const mp_process p = {.main = counting_main, .user = &c};
    const mp_listener l = {.line = ignore_line};
    mp_process_end end = {0};
    mp_error err = {0};
    double count = -1;

    mp_remove_folder(g->folder);
    if (mp_make_folders(g->folder, &err) || mp_process_run(&p, &l, &end, &err))
        *trouble = mp_arena_strdup(a, err.text);
    else if (end.status || (count = sum_totals(a, g)) <= 0)
        *trouble = mp_arena_printf(a, "mpbench under valgrind ended with status %d: %s", end.status,
                                   last_line(a, c.log));
    mp_remove_folder(g->folder);
    return *trouble ? -1 : count;
}
