/* calibrate.h - ranges of activations, from a stream of samples.
 *
 * One histogram of MO_HIST_BINS bins a value; its range grows by merging bins in
 * pairs, so memory depends neither on the number of samples nor on their size,
 * and no sample is looked at twice. */
#ifndef MO_CALIBRATE_H
#define MO_CALIBRATE_H

#include "lib/passes/pass.h"
#include "lib/run/run.h"

#define MO_HIST_BINS 2048

enum mo_calib_method { MO_CALIB_MSE, MO_CALIB_MINMAX, MO_CALIB_PERCENTILE, MO_CALIB_ENTROPY };
#define MO_CALIB_METHODS "mse|minmax|percentile|entropy"

struct mo_range { float low, high; };

struct mo_histogram {
    uint64_t counts[MO_HIST_BINS];
    double low, width;          /* bin i holds [low + i width, low + (i + 1) width) */
    float min, max;             /* exact, of everything seen */
    uint64_t n;                 /* elements seen */
    uint64_t n_flat;            /* of them: zeros seen while nothing but zeros had come */
    bool is_open;               /* low and width are settled */
};

/* Device memory that mo_histogram_add needs. False: there is none. */
struct mo_histogram_scratch {
    float *range;
    uint64_t *n_nan, *counts;
    bool is_shared;             /* every rank adds elements of its own at the same time; the bins of the counts are the
                                 * same, the counts each rank's own: mo_histogram_join adds them up */
};
bool mo_histogram_scratch_new(const struct mo_backend *be, struct mo_device *dev, struct mo_histogram_scratch *scratch);
void mo_histogram_scratch_free(const struct mo_backend *be, struct mo_device *dev, struct mo_histogram_scratch *scratch);
/* x lies on the device. Fails with MOPT_DATA on NaN and infinity. */
MOPT_MUST_CHECK enum mopt_status mo_histogram_add(struct mopt_ctx *ctx, const struct mo_backend *be,
                                                  struct mo_device *dev, struct mo_histogram_scratch *scratch,
                                                  struct mo_histogram *h, const float *x, size_t n);

/* After the last of them. */
MOPT_MUST_CHECK enum mopt_status mo_histogram_join(struct mopt_ctx *ctx, struct mo_histogram *h);

/* How a range is chosen for n_levels steps. */
struct mo_range_rule {
    enum mo_calib_method method;
    double percentile;          /* 99.99: share of the elements that stays inside */
    int n_levels;               /* 256 */
    bool symmetric;             /* -high..high */
};
/* Always holds zero; low == high == 0 when all elements are zero. */
struct mo_range mo_histogram_range(const struct mo_histogram *h, const struct mo_range_rule *rule);
/* Mean squared error of the elements when they are put on n_levels steps from low to high. */
double mo_histogram_mse(const struct mo_histogram *h, double low, double high, int n_levels);

struct mo_calibrate_options { size_t samples, batch; uint64_t seed; };
/* Runs samples of the training split through the graph and observes `values`; hist has one entry a value, zeroed. */
MOPT_MUST_CHECK enum mopt_status mo_calibrate(struct mo_job *job, const struct mo_graph *g, const mo_value_id *values,
                                              uint32_t n_values, const struct mo_calibrate_options *options,
                                              struct mo_histogram *hist, size_t *n_samples);

/* Batch size for a graph: what its first real input fixes, else `wanted`. */
size_t mo_batch_for(const struct mo_graph *g, size_t wanted);

#endif
