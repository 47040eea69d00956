/* ops.h - what operators share: members of struct mo_op that fit many of them. */
#ifndef MO_OPS_H
#define MO_OPS_H

#include "lib/graph/op.h"

/* couple: every axis of input 0 goes straight through to output 0. */
void mo_couple_through(struct mo_couple *c, const struct mo_graph *g, const struct mo_node *n);

#endif
