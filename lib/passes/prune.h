/* prune.h - what the files of the prune pass share. */
#ifndef MO_PRUNE_H
#define MO_PRUNE_H

#include "lib/graph/couple_solve.h"
#include "lib/passes/train.h"

enum mo_prune_score {
    MO_SCORE_AUTO, MO_SCORE_L1, MO_SCORE_L2, MO_SCORE_RANDOM, MO_SCORE_LAMP, MO_SCORE_ACTIVATION, MO_SCORE_APOZ,
    MO_SCORE_TAYLOR
};
enum mo_prune_scope { MO_SCOPE_GLOBAL, MO_SCOPE_LAYER };
enum mo_prune_ramp { MO_RAMP_AUTO, MO_RAMP_ONESHOT, MO_RAMP_CUBIC };

struct mo_prune_settings {
    struct mo_amount amount;
    const char *target, *pattern;
    bool structured, keep_first, sensitivity;
    int score, scope, ramp;
    double ramp_end, max_layer, min_keep, between;
    int64_t every, steps, round, samples;
    struct mo_train_settings train;
};

/* "macs=0.5x", "params=200K", "size=5MB". */
enum mo_prune_unit { MO_UNIT_PARAMETERS, MO_UNIT_MACS, MO_UNIT_BYTES };
struct mo_prune_target { enum mo_prune_unit unit; bool is_ratio; double value; };
MOPT_MUST_CHECK enum mopt_status mo_prune_target_parse(struct mopt_ctx *ctx, const char *text,
                                                       struct mo_prune_target *target);

/* What the user left open: a pruned model is far from where training ended, so the rates are those of a fresh one. */
void mo_prune_rates(struct mo_train_settings *train);

MOPT_MUST_CHECK enum mopt_status mo_prune_weights(struct mo_job *job, const struct mo_prune_settings *settings);
MOPT_MUST_CHECK enum mopt_status mo_prune_channels(struct mo_job *job, const struct mo_prune_settings *settings);
/* Loss against the sparsity of each layer alone, into the report. The model is left as it was. */
MOPT_MUST_CHECK enum mopt_status mo_prune_sensitivity(struct mo_job *job, const struct mo_prune_settings *settings);

/* ---- weights ---------------------------------------------------------------------------- */

/* A weight that may be masked. */
struct mo_prune_layer {
    mo_value_id value;
    mo_node_id node;            /* its first reader */
    const char *name;           /* of the node, or of the weight */
    size_t first, n;            /* place in the flat arrays of the pass */
    int axis_in;                /* axis that is summed over; -1: not known */
};
/* Weights of the selected weighted layers, into scratch. Layers left alone get an audit row when `audit`. */
MOPT_MUST_CHECK enum mopt_status mo_prune_layers(struct mo_job *job, bool audit, struct mo_prune_layer **layers,
                                                 uint32_t *n_layers, size_t *n_elems);

struct mo_prune_rule {
    enum mo_prune_score score;
    enum mo_prune_scope scope;
    double max_layer;           /* largest share of one layer that may go */
    int n_keep, n_of;           /* N:M pattern; n_of 0: none */
    uint64_t seed;
};
/* keep[i] of every weight so that `n_drop` of them (of each layer its share, for MO_SCOPE_LAYER) go. w: flat
 * magnitudes' source. Exact counts; ties by position. */
MOPT_MUST_CHECK enum mopt_status mo_prune_mask(struct mopt_ctx *ctx, const struct mo_graph *g,
                                               const struct mo_prune_layer *layers, uint32_t n_layers,
                                               const struct mo_prune_rule *rule, const float *w, size_t n_elems,
                                               size_t n_drop, uint8_t *keep);

/* ---- channels ------------------------------------------------------------------------------ */

/* One number a class: what the model loses when it goes. Classes of walled groups stay 0; NaN: the group could not
 * be measured. */
MOPT_MUST_CHECK enum mopt_status mo_prune_scores(struct mo_job *job, const struct mo_channels *channels,
                                                 const struct mo_prune_settings *settings, double *score);

#endif
