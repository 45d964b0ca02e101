#include "plots/gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/core/ctx.h"
#include "kernels/core/memory.h"
#include "plots/templates.h"
#include "results/table.h"

enum { PATH_ROOM = 4096, TIMEOUT = 60, TICK_MS = 100 };

extern char **environ;

/* ---- files ---------------------------------------------------------------------------------- */

static bool failed(const mp_gnuplot *g)
{
    return g->err->code != MP_OK;
}

static const char *path_of(const mp_gnuplot *g, const char *folder, const char *name,
                           char path[PATH_ROOM])
{
    if (snprintf(path, PATH_ROOM, "%s/%s", folder, name) >= PATH_ROOM)
        mp_error_set(g->err, MP_EIO, "%.200s...: the path is too long", folder);
    return path;
}

static FILE *create(const mp_gnuplot *g, const char *name)
{
    char path[PATH_ROOM];

    path_of(g, g->folder, name, path);
    FILE *f = failed(g) ? NULL : fopen(path, "wb");
    if (!f && !failed(g))
        mp_error_set(g->err, MP_EIO, "%s: cannot be made: %s", path, strerror(errno));
    return f;
}

static void finish(const mp_gnuplot *g, FILE **f)
{
    if (*f && ((ferror(*f) != 0) | (fclose(*f) != 0)))
        mp_error_set(g->err, MP_EIO,
                     "%s: cannot be written: %s; make room there, or name another "
                     "folder with TMPDIR",
                     g->folder, strerror(errno));
    *f = NULL;
}

/* A character of more than one byte; returns how many.  pngcairo draws one that no font has as a
 * black box over the whole picture, so a PNG shows those that common fonts have, Latin, Greek,
 * Cyrillic and punctuation, and of others the code: U+65E5. */
static size_t write_wide(const mp_gnuplot *g, FILE *f, const char *s)
{
    static const struct {
        uint32_t first, last;
    } common[] = {{0xa0, 0x17f}, {0x38e, 0x3a1}, {0x3a3, 0x3ce}, {0x400, 0x45f}, {0x2013, 0x2026}};
    const unsigned char *byte = (const unsigned char *)s;
    const size_t n = *byte < 0xe0 ? 2 : *byte < 0xf0 ? 3 : 4;
    uint32_t code = *byte & (0x7fu >> n);
    bool plain = !g->png;

    for (size_t i = 1; i < n; i++)
        code = code << 6 | (byte[i] & 0x3f);
    for (size_t i = 0; i < sizeof common / sizeof *common; i++)
        plain = plain || (code >= common[i].first && code <= common[i].last);
    if (plain)
        fwrite(s, 1, n, f);
    else
        fprintf(f, "U+%04X", code);
    return n;
}

/* Text as gnuplot reads it in a field of a data file and between double quotes: there \ooo is a
 * character that has no meaning any more.  So whatever could have one is written that way: quotes,
 * backslashes, `commands`, @macros, # remarks; and digits after that, which would count as ooo.
 * (Between single quotes nothing works that begins with a quote.)  What a terminal would not show
 * comes as \xNN.  gnuplot does not escape the > in an SVG, where ]]> would be an error. */
static void write_text(const mp_gnuplot *g, FILE *f, const char *text)
{
    static const char harmless[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                   " .,:;=_+-/()[]";
    static const char digits[] = "0123456789";
    char *plain = mp_plain_text(text);
    bool escaped = false;

    if (!plain)
        mp_error_set(g->err, MP_ENOMEM, "no memory for a text of a plot");
    for (const char *s = plain; s && *s;) {
        if (*s & 0x80) {
            s += write_wide(g, f, s);
            escaped = false;
            continue;
        }
        escaped = !strchr(harmless, *s) || (escaped && strchr(digits, *s));
        fprintf(f, escaped ? "\\%03o" : "%c", *s);
        if (!strncmp(s, "]]>", 3))
            fputc(' ', f);
        s++;
    }
    mp_free(plain);
}

void mp_gnuplot_data(mp_gnuplot *g, const char *name)
{
    finish(g, &g->data);
    if (!failed(g))
        g->data = create(g, name);
}

static void write_number(FILE *f, double value)
{
    if (isfinite(value))
        fprintf(f, "%.17g", value);
    else
        fputs("NaN", f);
}

void mp_gnuplot_row(mp_gnuplot *g, const char *types, ...)
{
    va_list args;

    if (failed(g))
        return;
    va_start(args, types);
    for (const char *type = types; *type; type++) {
        if (type > types)
            fputc('\t', g->data);
        if (*type == 't')
            write_text(g, g->data, va_arg(args, const char *));
        else
            write_number(g->data, va_arg(args, double));
    }
    va_end(args);
    fputc('\n', g->data);
}

void mp_gnuplot_end_block(mp_gnuplot *g)
{
    if (!failed(g))
        fputs("\n\n", g->data);
}

void mp_gnuplot_bytes(mp_gnuplot *g, const void *bytes, size_t n)
{
    if (!failed(g))
        fwrite(bytes, 1, n, g->data);
}

static bool open_settings(mp_gnuplot *g)
{
    if (!failed(g) && !g->settings)
        g->settings = create(g, "settings.gp");
    return !failed(g);
}

void mp_gnuplot_set_text(mp_gnuplot *g, const char *name, const char *text)
{
    if (!open_settings(g))
        return;
    fprintf(g->settings, "%s = \"", name);
    write_text(g, g->settings, text);
    fputs("\"\n", g->settings);
}

void mp_gnuplot_set_number(mp_gnuplot *g, const char *name, double value)
{
    if (!open_settings(g))
        return;
    fprintf(g->settings, "%s = ", name);
    write_number(g->settings, value);
    fputc('\n', g->settings);
}

/* ---- scripts -------------------------------------------------------------------------------- */

/* The template of that name from the user's folder, if it is there. */
static FILE *open_own(const mp_gnuplot *g, const char *name)
{
    char path[PATH_ROOM];

    if (!g->templates)
        return NULL;
    path_of(g, g->templates, name, path);
    FILE *f = failed(g) ? NULL : fopen(path, "rb");
    if (!f && !failed(g) && errno != ENOENT)
        mp_error_set(g->err, MP_EIO, "%s: cannot be read: %s", path, strerror(errno));
    return f;
}

static void copy(FILE *from, FILE *to)
{
    char bytes[4096];
    size_t n;

    while ((n = fread(bytes, 1, sizeof bytes, from)) > 0)
        fwrite(bytes, 1, n, to);
}

static void write_script(const mp_gnuplot *g, const char *name)
{
    FILE *own = open_own(g, name), *to = failed(g) ? NULL : create(g, name);

    if (to && own)
        copy(own, to);
    else if (to)
        fputs(mp_template_text(name), to);
    finish(g, &to);
    if (own)
        fclose(own);
}

static void write_terminal(mp_gnuplot *g, const char *picture)
{
    if (!open_settings(g))
        return;
    fprintf(
        g->settings,
        "width = %d\nheight = %d\n"
        "set terminal %s size width,height font 'sans-serif,11' noenhanced background rgb 'white'\n"
        "set output '%s'\n",
        g->width, g->height, g->png ? "pngcairo" : "svg standalone", picture);
}

/* ---- the program ---------------------------------------------------------------------------- */

typedef struct child {
    pid_t pid;
    int fd;         /* what it says */
    char said[600]; /* the beginning of that */
    size_t length;
} child;

static mp_code start(const mp_gnuplot *g, const char *script, child *c)
{
    char *const argv[] = {"gnuplot", "-d", (char *)script, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC))
        return mp_error_set(g->err, MP_EIO, "no pipe for gnuplot: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    posix_spawn_file_actions_addchdir_np(&actions, g->folder);
    const int failure = posix_spawnp(&c->pid, argv[0], &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    c->fd = ends[0];
    if (!failure)
        return MP_OK;
    close(ends[0]);
    return mp_error_set(g->err, MP_EENGINE,
                        "gnuplot cannot be started: %s; install it with ci/setup or `apt install "
                        "gnuplot-nox`",
                        strerror(failure));
}

static bool is_stopped(const mp_gnuplot *g)
{
    return g->stopped && g->stopped();
}

/* Until it has nothing more to say; false: it took too long, or is to be stopped. */
static bool hear(const mp_gnuplot *g, child *c, int timeout)
{
    const uint64_t end = mp_now_ns() + (uint64_t)timeout * 1000000000u;
    char more[512];

    while (mp_now_ns() < end && !is_stopped(g)) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (poll(&p, 1, TICK_MS) <= 0)
            continue;
        const ssize_t n = read(c->fd, more, sizeof more);
        if (n <= 0)
            return true;
        const size_t room = sizeof c->said - 1 - c->length,
                     take = (size_t)n < room ? (size_t)n : room;
        memcpy(c->said + c->length, more, take);
        c->length += take;
    }
    return false;
}

/* As one line of words. */
static const char *squeeze(char *text)
{
    char *end = text;

    for (const char *s = text; *s; s++)
        if (!strchr(" \t\r\n", *s))
            *end++ = *s;
        else if (end > text && end[-1] != ' ')
            *end++ = ' ';
    *end = '\0';
    return text;
}

static void complain(const mp_gnuplot *g, const char *script, child *c, int status)
{
    char *said = mp_plain_text(squeeze(c->said));
    char how[40];

    snprintf(how, sizeof how, WIFSIGNALED(status) ? "signal %d" : "exit status %d",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    mp_error_set(
        g->err, MP_EENGINE,
        "gnuplot refuses %s (%s): %s; mend the template, or keep script and data with --keep "
        "DIR and run `gnuplot -d %s` there",
        script, how, said ? said : "", script);
    mp_free(said);
}

static void run(const mp_gnuplot *g, const char *script)
{
    const int timeout = g->timeout ? g->timeout : TIMEOUT;
    child c = {0};
    int status = 0;

    if (start(g, script, &c))
        return;
    const bool ended = hear(g, &c, timeout);
    if (!ended)
        kill(c.pid, SIGKILL);
    close(c.fd);
    while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (is_stopped(g)) /* the signal may have ended gnuplot, too */
        mp_error_set(g->err, MP_EIO, "interrupted");
    else if (!ended)
        mp_error_set(
            g->err, MP_EENGINE,
            "gnuplot did not end within %d s on %s; draw less at once, or mend the template",
            timeout, script);
    else if (status)
        complain(g, script, &c, status);
}

mp_code mp_gnuplot_draw(mp_gnuplot *g, const char *kind)
{
    char script[40], picture[40], path[PATH_ROOM];
    struct stat st;

    snprintf(script, sizeof script, "%s.gp", kind);
    snprintf(picture, sizeof picture, "%s.%s", kind, g->png ? "png" : "svg");
    write_terminal(g, picture);
    finish(g, &g->settings);
    finish(g, &g->data);
    write_script(g, "style.gp");
    write_script(g, script);
    if (!failed(g))
        run(g, script);
    if (!failed(g) && (stat(path_of(g, g->folder, picture, path), &st) || !st.st_size))
        mp_error_set(g->err, MP_EENGINE,
                     "%s drew no %s; see the built-in one with --print-template", script, picture);
    return g->err->code;
}

void mp_gnuplot_end(mp_gnuplot *g)
{
    finish(g, &g->data);
    finish(g, &g->settings);
}
