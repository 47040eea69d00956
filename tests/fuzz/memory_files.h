/* memory_files.h - see memory_files.c. */
#ifndef MEMORY_FILES_H
#define MEMORY_FILES_H

#include "formats/blob.h"

#define FUZZ_MEMORY_FILE "memory-file-"

void fuzz_memory_file(int k, const uint8_t *bytes, size_t n);

#endif
