/* cmd_report.c - one HTML page from JSON reports. */
#include <stdlib.h>
#include <string.h>

#include "cmd/cli.h"

enum mopt_status cmd_report(struct cli *cli)
{
    if (!cli->out)
        return cli_usage(cli, "where to? add -o PAGE.html");
    char **json = calloc(cli->n_paths, sizeof *json), *html = NULL;
    enum mopt_status s = MOPT_OK;
    size_t n;
    for (size_t i = 0; json && !s && i < cli->n_paths; i++)
        s = mopt_file_read(cli->ctx, cli->paths[i], &json[i], &n);
    if (!s)
        s = json ? mopt_report_html(cli->ctx, (const char *const *)json, cli->n_paths, &html) : MOPT_LIMIT;
    if (!s)
        s = mopt_file_write(cli->ctx, cli->out, html, strlen(html), cli->force);
    mopt_text_free(html);
    for (size_t i = 0; json && i < cli->n_paths; i++)
        mopt_text_free(json[i]);
    free(json);
    return s;
}
