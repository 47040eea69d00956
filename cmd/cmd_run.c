/* cmd_run.c - a recipe from a file. */
#include "cmd/cli.h"

enum mopt_status cmd_run(struct cli *cli)
{
    struct mopt_recipe *flags = cli->recipe;
    cli->recipe = NULL;
    enum mopt_status s = mopt_recipe_read(cli->ctx, cli->paths[0], &cli->recipe);
    /* flags given beside the recipe hold over what it says of the whole job */
    if (!s)
        s = mopt_recipe_override(cli->ctx, cli->recipe, flags);
    mopt_recipe_free(flags);
    if (s)
        return s;
    return cli_run_recipe(cli, cli->paths + 1, cli->n_paths - 1);
}
