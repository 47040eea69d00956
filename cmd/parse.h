/* parse.h - the command line: verb, shared flags, and flags that the option tables define. */
#ifndef MOPT_PARSE_H
#define MOPT_PARSE_H

#include "cmd/cli.h"

/* Fills cli (zeroed before); opens the context and a recipe with the verb's step. Prints --version
 * and lists itself; cli->command is then NULL and MOPT_OK returned. */
MOPT_MUST_CHECK enum mopt_status parse_command_line(struct cli *cli, int argc, char **argv);
void release_command_line(struct cli *cli);

#endif
