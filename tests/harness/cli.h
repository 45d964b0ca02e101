/* The program as its users run it: command in, exit status and both streams out.  Each test works
 * in a folder of its own. */
#ifndef MP_TESTS_HARNESS_CLI_H
#define MP_TESTS_HARNESS_CLI_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct cli {
    char folder[64];
    int status; /* exit status; 128 + n after signal n */
    char *out, *err;
} cli;

static inline char *cli_read(const cli *c, const char *name)
{
    char path[256];
    size_t n = 0, room = 1 << 16;
    char *text = malloc(room + 1);

    snprintf(path, sizeof path, "%s/%s", c->folder, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(text);
    while (f) {
        n += fread(text + n, 1, room - n, f);
        if (n < room)
            break;
        text = realloc(text, (room *= 2) + 1);
        assert_non_null(text);
    }
    if (f)
        fclose(f);
    text[n] = '\0';
    return text;
}

static inline void cli_write(const cli *c, const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", c->folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static inline int cli_setup(void **state)
{
    cli *c = calloc(1, sizeof *c);

    if (!c)
        return -1;
    strcpy(c->folder, "/tmp/mpbench-cli-XXXXXX");
    *state = c;
    return mkdtemp(c->folder) ? 0 : -1;
}

static inline int cli_teardown(void **state)
{
    cli *c = *state;
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", c->folder);
    const int failed = system(command);
    free(c->out);
    free(c->err);
    free(c);
    return failed;
}

/* Of a group: references, which are known by their content, are made once for all its tests. */
static inline int cli_share_cache(void **state)
{
    char folder[] = "/tmp/mpbench-cli-cache-XXXXXX";

    (void)state;
    return mkdtemp(folder) ? setenv("MPBENCH_CACHE", folder, 1) : -1;
}

static inline int cli_drop_cache(void **state)
{
    (void)state;
    return system("rm -rf \"$MPBENCH_CACHE\"");
}

/* Runs a shell command in the folder; $mpbench is the program (with the tests' faults), $fixtures
 * and $source are folders. */
static inline void cli_run(cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline void cli_run(cli *c, const char *format, ...)
{
    char what[3000], command[5000];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    snprintf(command, sizeof command,
             "cd '%s' && export mpbench='%s/mpbench-faults' fixtures='%s' source='%s' "
             "MPBENCH_CHECKPOINTS='%s/checkpoints' && { %s\n} >out.txt 2>err.txt",
             c->folder, MP_BINARY_DIR, MP_FIXTURES, MP_SOURCE_DIR, MP_FIXTURES, what);
    const int code = system(command);
    c->status = WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code);
    free(c->out);
    free(c->err);
    c->out = cli_read(c, "out.txt");
    c->err = cli_read(c, "err.txt");
}

/* On failure shows what there was instead. */
static inline void cli_assert_has(const char *text, const char *part)
{
    assert_non_null(text);
    if (!strstr(text, part))
        fail_msg("expected \"%s\" in:\n%s", part, text);
}

static inline void cli_assert_status(const cli *c, int status)
{
    if (c->status != status)
        fail_msg("expected exit status %d, got %d; stdout:\n%s\nstderr:\n%s", status, c->status,
                 c->out, c->err);
}

/* One value out of the database, as the sqlite3 program prints it. */
static inline void cli_assert_query(cli *c, const char *sql, const char *expected)
{
    cli_run(c, "sqlite3 mpbench.db \"%s\"", sql);
    c->out[strcspn(c->out, "\n")] = '\0';
    if (c->status || strcmp(c->out, expected))
        fail_msg("%s: expected \"%s\", got \"%s\" %s", sql, expected, c->out, c->err);
}

/* A scenario of one cell, fast even under ASan: two steps of a picture of 32 x 32, a short text for
 * the text encoder.  `more` is further YAML. */
static inline void cli_scenario(const cli *c, const char *name, const char *more)
{
    char text[2000], file[100];

    snprintf(text, sizeof text,
             "name: %s\npipeline: sana\ncheckpoint: ${MPBENCH_CHECKPOINTS}/sana-tiny\n"
             "inputs: {prompt: a photo of a red fox, height: 32, width: 32, steps: 2, seed: 7, "
             "guidance: 4.5, use_resolution_binning: false, max_sequence_length: 16, "
             "complex_human_instruction: []}\n%s",
             name, more);
    snprintf(file, sizeof file, "%s.yaml", name);
    cli_write(c, file, text);
}

#endif
