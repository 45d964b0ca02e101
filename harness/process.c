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

enum { TICK_MS = 100, MAX_LINE = 1 << 20, SHORTEST_US = 20, LONGEST_US = 1000 };
static const double GRACE = 2.0;     /* seconds between SIGTERM and SIGKILL */
static const double PATIENCE = 10.0; /* for the end of a process that has closed its pipe */

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
    sigaction(SIGHUP, &act, NULL);
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

static void be_child(const mp_process *p, pid_t parent, int fd, int input)
{
    const struct rlimit no_core = {0, 0};

    setpgid(0, 0); /* Ctrl-C reaches the parent alone, which then ends this group */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(input >= 0 ? input : null, STDIN_FILENO);
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

/* Cuts what was read into lines; the rest waits for more.  False when the listener has enough. */
static bool take_lines(const mp_listener *l, mp_text *t)
{
    size_t start = 0;
    bool more = true;

    for (size_t i = 0; more && i < t->length; i++)
        if (t->data[i] == '\n') {
            l->line(l->user, t->data + start, i - start);
            start = i + 1;
            more = !l->finished || !l->finished(l->user);
        }
    if (more && t->length - start > MAX_LINE) { /* no event is that long: the listener's to say */
        l->line(l->user, t->data + start, t->length - start);
        start = t->length;
        more = !l->finished || !l->finished(l->user);
    }
    if (start)
        memmove(t->data, t->data + start, t->length - start);
    t->length -= start;
    return more;
}

/* False at the end of the pipe. */
static bool read_some(int fd, mp_text *t)
{
    char block[65536];
    const ssize_t n = read(fd, block, sizeof block);

    if (n > 0)
        mp_text_add_n(t, block, (size_t)n);
    return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static void write_some(mp_child *c)
{
    const ssize_t n = write(c->input, c->outgoing.data, c->outgoing.length);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n < 0) { /* it has closed its end; what it does then is the result */
        close(c->input);
        c->input = -1;
        return;
    }
    memmove(c->outgoing.data, c->outgoing.data + n, c->outgoing.length - (size_t)n);
    c->outgoing.length -= (size_t)n;
}

static void end_group(pid_t pid, int number)
{
    if (kill(-pid, number))
        kill(pid, number);
}

/* Without reaping it: until then its process group keeps its number. */
static bool has_ended(pid_t pid)
{
    siginfo_t i = {0};

    return !waitid(P_PID, (id_t)pid, &i, WEXITED | WNOHANG | WNOWAIT) && i.si_pid == pid;
}

void mp_child_tell(mp_child *c, const char *text)
{
    mp_text_add(&c->outgoing, text);
}

bool mp_child_is_idle(const mp_child *c)
{
    struct pollfd poller = {.fd = c->fd, .events = POLLIN};

    return !c->pending.length && !c->outgoing.length && poll(&poller, 1, 0) == 0 &&
           !has_ended(c->pid);
}

/* Moves what can be moved within a tick.  False when there is no more to hear: at the end of the
 * pipe, which a descendant of a dead child may hold open for ever. */
static bool exchange(mp_child *c)
{
    const bool sending = c->input >= 0 && c->outgoing.length;
    struct pollfd pollers[] = {{.fd = c->fd, .events = POLLIN},
                               {.fd = sending ? c->input : -1, .events = POLLOUT}};
    const bool over = has_ended(c->pid); /* asked first: what it said before is then there */

    if (poll(pollers, 2, over ? 0 : TICK_MS) <= 0)
        return !over;
    if (pollers[1].revents)
        write_some(c);
    return pollers[0].revents ? read_some(c->fd, &c->pending) : !over;
}

bool mp_child_listen(mp_child *c, const mp_listener *l, mp_process_end *out)
{
    const double start = now(), deadline = l->timeout > 0 ? start + l->timeout : 0;
    const long long kills = oom_kills();
    double killed = 0; /* when SIGTERM was sent */
    bool open = true, more = true;

    *out = (mp_process_end){0};
    while (open && more) {
        open = exchange(c);
        more = take_lines(l, &c->pending);
        const bool late = deadline > 0 && now() >= deadline;
        if (!more)
            break;
        if (!killed && (late || interrupted)) {
            out->timed_out = late && !interrupted;
            out->interrupted = interrupted != 0;
            killed = now();
            end_group(c->pid, SIGTERM);
        } else if (killed && now() - killed > GRACE) {
            end_group(c->pid, SIGKILL);
            open = now() - killed < 2 * GRACE; /* whoever still writes then is none of its group */
        }
    }
    out->seconds = now() - start;
    out->out_of_memory =
        more && !out->timed_out && !out->interrupted && kills >= 0 && oom_kills() > kills;
    return !more;
}

void mp_child_reap(mp_child *c, mp_process_end *out)
{
    const double start = now();
    struct rusage usage = {0};
    int status = 0;

    if (c->input >= 0)
        close(c->input);
    /* Most end within a fraction of a millisecond. */
    for (useconds_t pause = SHORTEST_US;
         !has_ended(c->pid) && now() - start < PATIENCE && !interrupted;
         pause = pause < LONGEST_US ? 2 * pause : LONGEST_US)
        usleep(pause);
    out->lingered = !has_ended(c->pid) && !out->timed_out && !interrupted;
    end_group(c->pid, SIGKILL); /* it, and what it has started and left behind */
    while (wait4(c->pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    out->status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    out->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    out->peak_rss = (size_t)usage.ru_maxrss * 1024;
    out->out_of_memory = out->out_of_memory && out->signal == SIGKILL && !out->lingered;
    close(c->fd);
    mp_text_free(&c->pending);
    mp_text_free(&c->outgoing);
    *c = (mp_child){.fd = -1, .input = -1};
}

static void close_both(int fds[2])
{
    for (int i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

mp_code mp_child_start(const mp_process *p, mp_child *out, mp_error *err)
{
    const pid_t parent = getpid();
    int lines[2] = {-1, -1}, input[2] = {-1, -1};
    pid_t pid = -1;

    *out = (mp_child){.fd = -1, .input = -1};
    if (pipe2(lines, O_CLOEXEC) || (p->listens && pipe2(input, O_CLOEXEC)))
        mp_error_set(err, MP_EIO, "cannot make a pipe for a process: %s", strerror(errno));
    fflush(NULL);
    if (!err->code && (pid = fork()) < 0)
        mp_error_set(err, MP_EIO,
                     "cannot start a process: %s; end other programs, or raise the limit of "
                     "processes",
                     strerror(errno));
    if (pid == 0) {
        close(lines[0]);
        be_child(p, parent, lines[1], input[0]);
    }
    if (pid < 0) {
        close_both(lines);
        close_both(input);
        return err->code;
    }
    setpgid(pid, pid);
    close(lines[1]);
    if (p->listens) {
        close(input[0]);
        fcntl(input[1], F_SETFL, O_NONBLOCK);
    }
    *out = (mp_child){.pid = pid, .fd = lines[0], .input = input[1]};
    return MP_OK;
}

mp_code mp_process_run(const mp_process *p, const mp_listener *l, mp_process_end *out,
                       mp_error *err)
{
    const double start = now();
    mp_child c;

    *out = (mp_process_end){0};
    if (mp_child_start(p, &c, err))
        return err->code;
    mp_child_listen(&c, l, out);
    mp_child_reap(&c, out);
    out->seconds = now() - start;
    return MP_OK;
}
