#include "kernels/cpu/cpu_select.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool runs_base(void)
{
    return true;
}

static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static bool runs_avx512bf16(void)
{
    return runs_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* Linux lends the 8 KiB of tile registers to a process that asks for them, before its threads start
 * (Documentation/arch/x86/xstate.rst). */
static bool runs_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;

    return runs_avx512bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & AMX_BF16) &&
           (d & AMX_TILE) && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

/* Best first. */
static const struct level {
    const mp_backend *table;
    bool (*runs)(void);
} levels[] = {
    {&mp_cpu_amx, runs_amx},       {&mp_cpu_avx512bf16, runs_avx512bf16},
    {&mp_cpu_avx512, runs_avx512}, {&mp_cpu_avx2, runs_avx2},
    {&mp_cpu_base, runs_base},
};

enum { LEVELS = sizeof levels / sizeof *levels };

void mp_cpu_list(char *text, size_t size)
{
    size_t at = 0;

    text[0] = '\0';
    for (int i = 0; i < LEVELS; i++)
        if (levels[i].runs() && at < size)
            at += (size_t)snprintf(text + at, size - at, "%s%s", at ? " " : "",
                                   levels[i].table->name);
}

mp_code mp_cpu_select(const char *isa, const mp_backend **out, mp_error *err)
{
    char list[96];

    for (int i = 0; i < LEVELS; i++)
        if (levels[i].runs() && (!isa || !strcmp(isa, levels[i].table->name))) {
            *out = levels[i].table;
            return MP_OK;
        }
    mp_cpu_list(list, sizeof list);
    return mp_error_set(err, MP_EDEVICE,
                        "instruction set \"%s\" is not one that this machine runs; choose from: %s",
                        isa, list);
}
