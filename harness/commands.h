/* The subcommands: each gets its own name as argv[0] and returns the exit status. */
#ifndef MP_HARNESS_COMMANDS_H
#define MP_HARNESS_COMMANDS_H

#define X(name, summary) int mp_cmd_##name(int argc, char **argv);
#include "harness/commands.def"
#undef X

#endif
