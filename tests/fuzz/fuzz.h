/* fuzz.h - what every fuzz target has: the entry point that libFuzzer calls, and its bytes as a text. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The bytes ended by 0 in a block of exactly that size; the caller frees it. */
static inline char *fuzz_text(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);
    if (!text)
        abort();
    if (n)
        memcpy(text, data, n);
    text[n] = 0;
    return text;
}

#endif
