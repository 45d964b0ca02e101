#include "harness/environment.h"

#include <gnu/libc-version.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "harness/digest.h"
#include "results/metrics.h"

enum { MAX_PAIRS = 32 };

static void add(mp_environment *e, const char *key, const char *value)
{
    if (value && *value && e->count < MAX_PAIRS)
        e->pairs[e->count++] = (mp_pair){key, value};
}

static const char *given_commit(void)
{
    static const char *const given[] = {"MPBENCH_COMMIT", "GITHUB_SHA", "CI_COMMIT_SHA"};

    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        if (getenv(given[i]) && *getenv(given[i]))
            return getenv(given[i]);
    return NULL;
}

FILE *mp_environment_ask_git(void)
{
    return given_commit()
               ? NULL
               : popen("exec git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null",
                       "re");
}

static const char *hear_git(mp_arena *a, FILE *git)
{
    char line[128] = "";

    if (!git)
        return given_commit();
    if (!fgets(line, sizeof line, git))
        line[0] = '\0';
    pclose(git);
    line[strcspn(line, "\n")] = '\0';
    return mp_arena_strdup(a, line);
}

void mp_environment_hear_git(mp_arena *a, FILE *git, mp_environment *e)
{
    add(e, "git_commit", hear_git(a, git));
}

static const char *os_name(mp_arena *a)
{
    struct utsname u;

    return uname(&u) ? NULL : mp_arena_printf(a, "%s %s %s", u.sysname, u.release, u.machine);
}

static void fingerprint(mp_arena *a, mp_environment *e)
{
    const mp_device_info *d = &e->device;
    /* GiB, since firmware changes move the last digits. */
    const char *text = mp_arena_printf(a, "%s\n%s\n%d\n%d\n%zu\n%s\n%s", d->cpu, d->isa, d->cores,
                                       d->threads, d->memory >> 30, d->blas, MPBENCH_BUILD);

    mp_sha256_hex(text, strlen(text), e->fingerprint);
}

mp_code mp_environment_read(mp_arena *a, int threads, mp_environment *out, mp_error *err)
{
    const char *isa = getenv("MPBENCH_ISA");
    mp_device_info *d = &out->device;

    *out = (mp_environment){.isa = isa && *isa ? isa : NULL};
    if (mp_device_probe(out->isa, d, err))
        return err->code;
    if (threads)
        d->threads = threads;
    out->pairs = mp_arena_alloc(a, MAX_PAIRS, sizeof *out->pairs);
    mp_digest_program(out->program);
    fingerprint(a, out);
    add(out, "mpbench", MPBENCH_VERSION);
    add(out, "build", MPBENCH_BUILD ", " __VERSION__);
    add(out, "program", mp_arena_strdup(a, out->program));
    add(out, "cpu", d->cpu);
    add(out, "isa", d->isa);
    add(out, "isas", d->isas);
    add(out, "cores", mp_arena_printf(a, "%d", d->cores));
    add(out, "threads", mp_arena_printf(a, "%d", d->threads));
    add(out, "memory_mib", mp_arena_printf(a, "%zu", d->memory >> 20));
    add(out, "blas", d->blas);
    add(out, "os", os_name(a));
    add(out, "libc", mp_arena_printf(a, "glibc %s", gnu_get_libc_version()));
    add(out, "jansson", JANSSON_VERSION);
    return MP_OK;
}
