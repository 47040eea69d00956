/* ops.h - what operators share: members of struct mo_op that fit many of them, and
 * small questions that their functions ask. */
#ifndef MO_OPS_H
#define MO_OPS_H

#include "lib/graph/op.h"

struct mo_run;

/* couple: every axis of input 0 goes straight through to output 0. */
void mo_couple_through(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n);
/* couple: the first n_axes axes of input 0 go through to output 0; the others are used as a whole. */
void mo_couple_leading(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n, int n_axes);
/* couple: batch and channels (axes 0 and 1) go through, as in a pooling. */
void mo_couple_image(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n);
/* The id of a node of g. */
mo_node_id mo_node_id_of(const struct mo_graph *g, const struct mo_node *n);

/* prepare: refuses inputs that are not float32 (or bfloat16 where op->bf16_in says so), because the kernels have
 * nothing else. */
enum mopt_status mo_prepare_float32(struct mo_run *r, const struct mo_node *n);
/* prepare: the same for input 0 alone; the others are sizes and places. */
enum mopt_status mo_prepare_float32_x(struct mo_run *r, const struct mo_node *n);

/* The product, or MO_UNKNOWN when a factor is unknown or it overflows. */
int64_t mo_product(const int64_t *factors, int n);
/* Elements of input or output i in a planned graph; 0 when it is left out. */
size_t mo_run_in_elems(const struct mo_run *r, const struct mo_node *n, uint32_t i);
size_t mo_run_out_elems(const struct mo_run *r, const struct mo_node *n, uint32_t i);
/* The type of input or output i; float32 where it is left out. */
enum mo_dtype mo_run_in_type(const struct mo_run *r, const struct mo_node *n, uint32_t i);
enum mo_dtype mo_run_out_type(const struct mo_run *r, const struct mo_node *n, uint32_t i);
/* Zeros into n numbers of that type on the device. */
void mo_run_zero_of(struct mo_run *r, enum mo_dtype dtype, size_t n_elems, void *x);
/* Zeros into n floats on the device. */
void mo_run_zero(struct mo_run *r, size_t n_elems, float *x);
/* Input i, one number of any type, while running; false when it has not one element or is text. */
bool mo_run_scalar(struct mo_run *r, const struct mo_node *n, uint32_t i, double *x);

#endif
