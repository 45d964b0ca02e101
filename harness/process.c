#include "harness/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness/arena.h"

enum { TICK_MS = 100, MAX_LINE = 1 << 20 };
static const double GRACE = 2.0; /* seconds between SIGTERM and SIGKILL */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

void mp_interrupt_catch(void)
{
    struct sigaction act = {.sa_handler = on_interrupt}; /* no SA_RESTART: poll returns */

    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
}

bool mp_interrupted(void)
{
    return interrupted != 0;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- limits --------------------------------------------------------------------------------- */

/* Writable private memory that this process has, in bytes: what RLIMIT_DATA counts. */
static size_t data_now(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long long pages = 0;

    if (f) {
        if (fscanf(f, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

static size_t machine_memory(void)
{
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

/* Mapped weights are not counted: the system can drop their pages at any time. */
static void limit_memory(size_t bytes)
{
    const rlim_t limit = data_now() + (bytes ? bytes : machine_memory());
    const struct rlimit r = {limit, limit};

    setrlimit(RLIMIT_DATA, &r);
}

/* Processes that the kernel has killed for want of memory, since it started; -1: not told. */
static long long oom_kills(void)
{
    FILE *f = fopen("/proc/vmstat", "r");
    char line[128];
    long long n = -1;

    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "oom_kill %lld", &n) == 1)
            break;
    if (f)
        fclose(f);
    return n;
}

/* ---- the child ------------------------------------------------------------------------------ */

static void be_child(const mp_process *p, pid_t parent, int fd)
{
    const struct rlimit no_core = {0, 0};

    setpgid(0, 0); /* Ctrl-C reaches the parent alone, which then ends this group */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO); /* the result is the parent's; libraries may chatter */
    setrlimit(RLIMIT_CORE, &no_core);
    limit_memory(p->memory);
    fflush(NULL);
    const int status = p->main(p->user, fd);
    close(fd);
#ifdef __SANITIZE_ADDRESS__
    exit(status); /* so that leaks are reported */
#else
    _exit(status);
#endif
}

/* ---- the parent ----------------------------------------------------------------------------- */

/* Cuts what was read into lines; the rest waits for more. */
static void take_lines(const mp_process *p, mp_text *t)
{
    size_t start = 0;

    for (size_t i = 0; i < t->length; i++)
        if (t->data[i] == '\n') {
            p->line(p->listener, t->data + start, i - start);
            start = i + 1;
        }
    if (t->length - start > MAX_LINE)
        start = t->length; /* no event is that long */
    memmove(t->data, t->data + start, t->length - start);
    t->length -= start;
}

/* False at the end of the pipe. */
static bool read_some(const mp_process *p, int fd, mp_text *t)
{
    char block[65536];
    const ssize_t n = read(fd, block, sizeof block);

    if (n < 0)
        return errno == EINTR || errno == EAGAIN;
    if (n == 0)
        return false;
    mp_text_add_n(t, block, (size_t)n);
    take_lines(p, t);
    return true;
}

static void end_group(pid_t pid, int number)
{
    if (kill(-pid, number))
        kill(pid, number);
}

/* Reads until the pipe closes; ends the child at its deadline or on an interrupt. */
static void listen_to(const mp_process *p, pid_t pid, int fd, mp_process_end *out)
{
    const double deadline = p->timeout > 0 ? now() + p->timeout : 0;
    double killed = 0; /* when SIGTERM was sent */
    mp_text t = {0};
    bool open = true;

    while (open) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        if (poll(&poller, 1, TICK_MS) > 0)
            open = read_some(p, fd, &t);
        const bool late = deadline > 0 && now() >= deadline;
        if (!killed && (late || interrupted)) {
            out->timed_out = late && !interrupted;
            out->interrupted = interrupted != 0;
            killed = now();
            end_group(pid, SIGTERM);
        } else if (killed && now() - killed > GRACE) {
            end_group(pid, SIGKILL);
        }
    }
    mp_text_free(&t);
}

static void await(pid_t pid, mp_process_end *out)
{
    struct rusage usage;
    int status = 0;

    while (wait4(pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    out->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    out->peak_rss = (size_t)usage.ru_maxrss * 1024;
}

mp_code mp_process_run(const mp_process *p, mp_process_end *out, mp_error *err)
{
    const pid_t parent = getpid();
    const double start = now();
    const long long kills = oom_kills();
    int fds[2];

    *out = (mp_process_end){0};
    if (pipe2(fds, O_CLOEXEC))
        return mp_error_set(err, MP_EIO, "cannot make a pipe for a process: %s", strerror(errno));
    fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) {
        close(fds[0]);
        close(fds[1]);
        return mp_error_set(err, MP_EIO,
                            "cannot start a process: %s; end other programs, or raise "
                            "the limit of processes",
                            strerror(errno));
    }
    if (pid == 0) {
        close(fds[0]);
        be_child(p, parent, fds[1]);
    }
    setpgid(pid, pid);
    close(fds[1]);
    listen_to(p, pid, fds[0], out);
    close(fds[0]);
    await(pid, out);
    out->seconds = now() - start;
    out->out_of_memory = out->signal == SIGKILL && !out->timed_out && !out->interrupted &&
                         kills >= 0 && oom_kills() > kills;
    return MP_OK;
}
