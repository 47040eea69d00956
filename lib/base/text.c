/* text.c - hashing, globs, the nearest word, and texts that grow. */
#include "lib/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

uint64_t mo_hash64(const void *bytes, size_t n, uint64_t seed)
{
    uint64_t hash = 0xcbf29ce484222325u ^ seed;
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

/* One character of the pattern at *p against c; moves *p behind it. */
static bool glob_one(const char **p, char c)
{
    const char *q = *p;
    if (*q == '?') {
        *p = q + 1;
        return c != 0;
    }
    const char *close = *q == '[' && q[1] ? strchr(q + 2, ']') : NULL;
    if (!close) {
        *p = q + 1;
        return *q == c;
    }
    bool negate = q[1] == '!', hit = false;
    for (q += 1 + negate; q < close; q++) {
        if (q[1] == '-' && q + 2 < close) {
            hit |= *q <= c && c <= q[2];
            q += 2;
        } else
            hit |= *q == c;
    }
    *p = close + 1;
    return c && hit != negate;
}

/* Greedy with one point to go back to: a later * makes every earlier one final. */
bool mo_glob(const char *pattern, const char *text)
{
    const char *back_pattern = NULL, *back_text = NULL;
    while (*text) {
        if (*pattern == '*') {
            back_pattern = ++pattern;
            back_text = text;
            continue;
        }
        const char *p = pattern;
        if (*pattern && glob_one(&p, *text)) {
            pattern = p;
            text++;
        } else if (back_pattern) {
            pattern = back_pattern;
            text = ++back_text;
        } else
            return false;
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

enum { NEAREST_MAX = 40 };

/* Levenshtein distance of short words. */
static size_t distance(const char *a, const char *b)
{
    size_t n_a = strlen(a), n_b = strlen(b), row[NEAREST_MAX + 1];
    if (n_a > NEAREST_MAX || n_b > NEAREST_MAX)
        return NEAREST_MAX;
    for (size_t j = 0; j <= n_b; j++)
        row[j] = j;
    for (size_t i = 1; i <= n_a; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = MO_MIN(change, MO_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[n_b];
}

const char *mo_nearest(const char *word, const char *const *words, size_t n_words)
{
    const char *best = NULL;
    size_t n = strlen(word), best_distance = n < 4 ? 2 : n / 2 + 1;
    for (size_t i = 0; n > 1 && i < n_words; i++) /* an abbreviation is nearer than another word */
        if (!strncmp(word, words[i], n))
            return words[i];
    for (size_t i = 0; i < n_words; i++) {
        size_t d = distance(word, words[i]);
        if (d < best_distance) {
            best_distance = d;
            best = words[i];
        }
    }
    return best;
}

const char *mopt_nearest(const char *word, const char *const *words, size_t n_words)
{
    return mo_nearest(word, words, n_words);
}

/* ---- texts that grow ---- */

static bool reserve(struct mo_text *t, size_t more)
{
    if (t->is_broken || t->room - t->n > more)
        return !t->is_broken;
    size_t room = 2 * t->room + more + 4096;
    char *bytes = mo_mem_grow(t->bytes, t->n, room);
    if (!bytes) {
        t->is_broken = true;
        return false;
    }
    t->bytes = bytes;
    t->room = room;
    return true;
}

void mo_text_put(struct mo_text *t, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n >= 0 && reserve(t, (size_t)n + 1)) {
        vsnprintf(t->bytes + t->n, (size_t)n + 1, fmt, again);
        t->n += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

/* Control characters are allowed in neither, even as references. */
static char printable(char c)
{
    return (unsigned char)c < 0x20 && c != '\n' && c != '\t' ? ' ' : c;
}

void mo_text_xml(struct mo_text *t, const char *untrusted)
{
    for (; *untrusted; untrusted++) {
        const char *as = *untrusted == '<'   ? "&lt;"
                         : *untrusted == '>' ? "&gt;"
                         : *untrusted == '&' ? "&amp;"
                         : *untrusted == '"' ? "&quot;"
                                             : NULL;
        if (as)
            mo_text_put(t, "%s", as);
        else
            mo_text_put(t, "%c", printable(*untrusted));
    }
}

void mo_text_quoted(struct mo_text *t, const char *untrusted)
{
    for (; *untrusted; untrusted++)
        mo_text_put(t, *untrusted == '"' || *untrusted == '\\' ? "\\%c" : "%c", printable(*untrusted));
}
