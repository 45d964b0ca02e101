#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "harness/commands.h"
#include "harness/options.h"
#include "harness/yaml_node.h"
#include "kernels/device.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char **argv);
} commands[] = {
#define X(name, summary) {#name, summary, mp_cmd_##name},
#include "harness/commands.def"
#undef X
};

enum { COMMANDS = (int)(sizeof commands / sizeof *commands) };

static void print_help(FILE *to)
{
    fputs("usage: mpbench COMMAND [options]\n\n"
          "Benchmark and regression tests for mixed-precision diffusion generation.\n\n"
          "commands:\n",
          to);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-11s %s\n", commands[i].name, commands[i].summary);
    fputs(
        "\n`mpbench COMMAND --help` explains one; `mpbench --version` says which build this is.\n"
        "exit status: 0 all as expected, 1 regression or broken budget, 2 bad usage, scenario or\n"
        "checkpoint, 3 a cell ended otherwise than expected, 4 inconclusive\n",
        to);
}

static int unknown(const char *name)
{
    const char *names[COMMANDS];

    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    const char *near = mp_nearest(name, names, COMMANDS);
    fprintf(stderr, "mpbench: unknown command '%.60s'%s%s%s; see `mpbench --help`\n", name,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return MP_EXIT_USAGE;
}

static bool reader_has_left(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};

    return poll(&out, 1, 0) == 1 && (out.revents & POLLERR);
}

/* Whether standard output took it all.  A reader that had enough (`mpbench list | head`) is no
 * failure: the program ends without a word by SIGPIPE, as others do, unless it has more to say by
 * its status. */
static int end(int status)
{
    if (!fflush(stdout) && !ferror(stdout))
        return status;
    if (!reader_has_left()) {
        perror("mpbench: writing the result");
        return MP_EXIT_FAILED;
    }
    if (status == MP_EXIT_OK) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    return status;
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN);         /* a file-size limit is an error of write, not a death */
    signal(SIGPIPE, SIG_IGN);         /* a run goes on when nobody reads any more */
    setvbuf(stderr, NULL, _IOLBF, 0); /* a line is one write, not one for each letter */
    mp_device_quiet();
    if (argc < 2) {
        print_help(stderr);
        return MP_EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
        print_help(stdout);
        return end(MP_EXIT_OK);
    }
    if (!strcmp(argv[1], "--version")) {
        puts("mpbench " MPBENCH_VERSION);
        return end(MP_EXIT_OK);
    }
    for (int i = 0; i < COMMANDS; i++)
        if (!strcmp(argv[1], commands[i].name))
            return end(commands[i].run(argc - 1, argv + 1));
    return unknown(argv[1]);
}
