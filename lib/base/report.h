/* report.h - building the tree that mopt.h lets callers read.
 *
 * Adding never fails visibly: when memory ends the tree remembers it and
 * mo_report_ok() is false; so that building a report does not need a check a line. */
#ifndef MO_REPORT_H
#define MO_REPORT_H

#include "lib/base/base.h"

struct mopt_report *mo_report_new(void);                                            /* an empty object; NULL: no memory */
bool mo_report_ok(const struct mopt_report *report);
/* Into an object by key; into a list with key NULL. An existing key is replaced. A NULL report is ignored. */
struct mopt_report *mo_report_object(struct mopt_report *report, const char *key);
struct mopt_report *mo_report_list(struct mopt_report *report, const char *key);
void mo_report_set_int(struct mopt_report *report, const char *key, int64_t value);
void mo_report_set_number(struct mopt_report *report, const char *key, double value);  /* NaN, inf: null */
void mo_report_set_bool(struct mopt_report *report, const char *key, bool value);
void mo_report_set_text(struct mopt_report *report, const char *key, const char *value);
void mo_report_set_null(struct mopt_report *report, const char *key);

#endif
