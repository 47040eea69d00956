/* plugin.h - what the plug-in libmopt-mpi.so gives to load.c. */
#ifndef MO_COMM_PLUGIN_H
#define MO_COMM_PLUGIN_H

#include "kernels/comm/comm.h"

#define MO_MPI_FILE "libmopt-mpi.so"
#define MO_MPI_SYMBOL "mo_mpi_plugin"
/* To be raised with every change of struct mo_comm: a plug-in of another build is refused by it. */
#define MO_MPI_SIGNATURE "mopt comm 2"

#define MO_NCCL_FILE "libmopt-nccl.so"
#define MO_NCCL_SYMBOL "mo_nccl_plugin"

/* The table, or NULL when signature is not the plug-in's own. */
typedef const struct mo_comm *mo_mpi_plugin_fn(const char *signature);
typedef const struct mo_comm_device *mo_nccl_plugin_fn(const char *signature);

#endif
