/* upgrade.h - a model brought to a newer opset of ai.onnx. */
#ifndef MO_UPGRADE_H
#define MO_UPGRADE_H

#include "lib/graph/graph.h"

enum { MO_OPSET_OLDEST = 6, MO_OPSET_NEWEST = 25 };

/* Opset at least `opset` for the default domain, with the meaning that the model had. Local functions, whose nodes are of
 * an opset of their own, become nodes. Where nodes have no form in that opset the run is refused by naming all of them. */
MOPT_MUST_CHECK enum mopt_status mo_upgrade(struct mopt_ctx *ctx, struct mopt_model *model, int opset);

#endif
