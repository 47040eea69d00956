/* couple_solve.h - the solved equations of couple.h: which channels a model has,
 * what hangs on each, and how to cut some of them out.
 *
 *     mo_infer_sample(ctx, g, dim);
 *     mo_channels_new(ctx, g, &channels);         states every node's equations, solves them
 *     ... choose classes by their members' weights ...
 *     mo_channels_cut(ctx, channels, is_cut, g, dim, MO_CUT_DATA);
 *
 * A class is one channel: everything that goes when it goes. Classes that touch
 * the same axes form a group: the channels of one layer, or of several layers
 * that a residual sum ties together. */
#ifndef MO_COUPLE_SOLVE_H
#define MO_COUPLE_SOLVE_H

#include "lib/graph/couple.h"

/* One axis of one value that has elements. */
struct mo_couple_axis {
    mo_value_id value;
    int axis;
    uint32_t first, n;              /* element numbers first .. first + n - 1 */
    const char *wall;               /* why nothing here may be cut; NULL: no such reason */
    mo_node_id wall_node;           /* whose operator said so; MO_NONE: a graph input, output or capture */
    uint32_t stated_by;             /* while solving: node + 1 that mentioned it last */
};

struct mo_couple_member { uint32_t axis, index; };      /* into channels->axes; element along it */

/* mo_couple_weight, as an operator stated it. */
struct mo_couple_weight_row {
    mo_node_id node;
    mo_value_id value;
    uint32_t axis;                  /* into channels->axes */
    enum mo_couple_role role;
};

struct mo_channel_class {
    uint32_t first, n_members;      /* into channels->members, sorted by axis, then index */
    uint32_t group;
};

struct mo_channel_group {
    uint32_t first, n_classes;      /* into channels->classes */
    const uint32_t *axes; uint32_t n_axes;              /* into channels->axes */
    const uint32_t *weights; uint32_t n_weights;        /* into channels->weights: statements on those axes */
    const char *wall;               /* NULL: classes may be cut, as long as one is left */
    mo_node_id wall_node;
    char *why;                      /* the wall as a sentence that names the node; NULL without one */
    mo_node_id node;                /* the first layer that makes these channels */
    const char *name;               /* its name, or its weight's */
};

struct mo_channels {
    struct mo_arena arena;
    struct mo_couple_axis *axes; uint32_t n_axes;
    struct mo_couple_member *members; uint32_t n_members;
    struct mo_couple_weight_row *weights; uint32_t n_weights;
    struct mo_channel_class *classes; uint32_t n_classes;
    struct mo_channel_group *groups; uint32_t n_groups;
    uint32_t n_values;              /* of the graph they were made from */
    uint32_t *value_axis;           /* by value: its first axis in axes, MO_NONE: it has none */
};

/* Shapes of g must have been inferred with mo_infer_sample. Only channels that some weighted layer makes are
 * enumerated. The graph is not changed and may go away before the result. */
MOPT_MUST_CHECK enum mopt_status mo_channels_new(struct mopt_ctx *ctx, const struct mo_graph *g,
                                                 struct mo_channels **channels);
void mo_channels_free(struct mo_channels *channels);

/* Cuts one class of every free group from a copy of g and infers its shapes. A group where that fails gets
 * a wall with the words of the failure, so that what is left can be cut. */
MOPT_MUST_CHECK enum mopt_status mo_channels_verify(struct mopt_ctx *ctx, struct mo_channels *channels,
                                                    const struct mo_graph *g, int64_t free_dim);

enum mo_cut_kind {
    MO_CUT_DATA,        /* constants get new elements */
    MO_CUT_SHAPES,      /* for counting, on a copy made by mo_graph_copy: large constants only get the new shape */
};
/* Removes the classes with is_cut[class] from g (the graph the channels were made from, or a copy), lets the
 * operators mend what holds sizes, infers anew with mo_infer_sample(free_dim) and compares with what the
 * equations promise. On failure g may only be freed. */
MOPT_MUST_CHECK enum mopt_status mo_channels_cut(struct mopt_ctx *ctx, const struct mo_channels *channels,
                                                 const bool *is_cut, struct mo_graph *g, int64_t free_dim,
                                                 enum mo_cut_kind kind);

#endif
