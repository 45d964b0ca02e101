#include "kernels/cpu/cpu_info.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cblas.h>
#include <hwloc.h>

/* hwloc leaves the model's name to the operating system: /proc/cpuinfo has it on Linux. */
static void cpu_model(char *text, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];

    snprintf(text, size, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !value)
            continue;
        value += strspn(value, ": \t");
        value[strcspn(value, "\n")] = '\0';
        snprintf(text, size, "%s", value);
        break;
    }
    if (f)
        fclose(f);
}

/* Cores alone. */
static bool load_topology(bool ask_cpus, hwloc_topology_t *out)
{
    hwloc_topology_t t;

    if (hwloc_topology_init(&t))
        return false;
    if (!ask_cpus)
        hwloc_topology_set_components(t, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
    hwloc_topology_set_all_types_filter(t, HWLOC_TYPE_FILTER_KEEP_NONE);
    hwloc_topology_set_type_filter(t, HWLOC_OBJ_CORE, HWLOC_TYPE_FILTER_KEEP_ALL);
    hwloc_bitmap_t mine = hwloc_bitmap_alloc();
    const bool loaded = mine && !hwloc_topology_load(t) &&
                        (ask_cpus || hwloc_get_nbobjs_by_type(t, HWLOC_OBJ_CORE) > 0);
    if (loaded && !hwloc_get_cpubind(t, mine, HWLOC_CPUBIND_THREAD))
        hwloc_topology_restrict(t, mine, 0);
    hwloc_bitmap_free(mine);
    if (loaded)
        *out = t;
    else
        hwloc_topology_destroy(t);
    return loaded;
}

/* Linux knows.  Only where it does not say (a container without /sys) hwloc asks each CPU itself:
 * it moves there, and a virtual machine is left for each question. */
bool mp_cpu_topology(struct hwloc_topology **out)
{
    return load_topology(false, out) || load_topology(true, out);
}

static int core_count(void)
{
    hwloc_topology_t topology;

    if (!mp_cpu_topology(&topology))
        return 0;
    const int cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
    hwloc_topology_destroy(topology);
    return cores > 0 ? cores : 0;
}

void mp_cpu_describe(mp_device_info *out)
{
    cpu_set_t set;

    cpu_model(out->cpu, sizeof out->cpu);
    snprintf(out->blas, sizeof out->blas, "%s, core %s", openblas_get_config(),
             openblas_get_corename());
    out->threads = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    out->cores = core_count();
    out->memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

void mp_cpu_single_blas(void)
{
    openblas_set_num_threads(1);
}

/* OpenBLAS's own handler of pthread_atfork, in no header; not in a build without threads. */
int blas_thread_shutdown_(void) __attribute__((weak));

void mp_cpu_quiet_blas(void)
{
    if (blas_thread_shutdown_)
        blas_thread_shutdown_();
}
