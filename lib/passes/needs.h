/* needs.h - whether every option that was given has an effect: what the `needs` column of the option tables says.
 *
 *   needs   = clause ...               all must hold; a space between
 *   clause  = term,term...             one must hold
 *   term    = [!] name                 the option is on: true, not 0, given
 *           | [!] name=word|word...    it is one of these (a choice, or a number)
 *           | @word                    some step has that flag (needs.c: flags), or is the pass of that name
 *
 * Names are looked for in the step's table, then in the job's. A term that names the option itself holds, so that a
 * group can ask for one of its own rows. */
#ifndef MO_NEEDS_H
#define MO_NEEDS_H

#include "lib/passes/recipe.h"

/* Each option that was given, of the job and of each step. MOPT_USAGE names the first that would do nothing. */
MOPT_MUST_CHECK enum mopt_status mo_needs_check(struct mopt_ctx *ctx, const struct mopt_recipe *recipe);

/* The needs of a row and of the groups around it, outermost first; how many there are. */
enum { MO_NEEDS_DEPTH = 4 };
size_t mo_needs_of(const struct mopt_option *table, const char *name, const char *needs[MO_NEEDS_DEPTH]);

#endif
