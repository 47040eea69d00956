/* Any text as a report (`report` and --baseline read them): refused in words, or JSON and a page can be made of it. */
#include "formats/formats.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct mopt_ctx ctx = {.max_memory_bytes = 64 << 20, .n_threads = 1};
    struct mopt_report *report = NULL;
    char *text = fuzz_text(data, n), *page = NULL;
    const char *const texts[] = {text, text};
    if (mo_report_parse(&ctx, text, &report)) {
        if (!ctx.error[0] || report)
            abort();
    } else {
        mopt_text_free(mopt_report_json(report));
        (void)mopt_report_number(mopt_report_at(report, "after.metrics.accuracy"), 0);
        mopt_report_free(report);
        if (mopt_report_html(&ctx, texts, 2, &page))
            abort();
        mopt_text_free(page);
    }
    free(text);
    return 0;
}
