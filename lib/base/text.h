/* text.h - a text that grows: pages and drawings. */
#ifndef MO_TEXT_H
#define MO_TEXT_H

#include "lib/base/base.h"

struct mo_text {
    char *bytes;            /* ends with a 0; mo_mem_free frees it */
    size_t n, room;
    bool is_broken;         /* there was no memory at some point: what follows is dropped */
};
MOPT_PRINTF(2, 3) void mo_text_put(struct mo_text *text, const char *fmt, ...);
/* Text that is not trusted, as the content or an attribute of XML and HTML. */
void mo_text_xml(struct mo_text *text, const char *untrusted);
/* The same within quotes, as DOT and C read them. */
void mo_text_quoted(struct mo_text *text, const char *untrusted);

#endif
