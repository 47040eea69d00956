/* The CUDA backend as far as a machine without a card can tell: the plug-in loads, its table is complete, and
 * where no device opens the reason is said. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

#if MOPT_WITH_CUDA

START_TEST(the_table_is_complete)
{
    const struct mo_backend *be = mo_cuda_backend();
    char why[512] = "";
    if (!be->alloc)
        be->open(0, 1, why, sizeof why);
    ck_assert_msg(be->alloc, "the plug-in was not loaded: %s", why);
    ck_assert_str_eq(be->name, "cuda");
    ck_assert(be->open && be->close && be->describe && be->free && be->upload && be->download && be->sync);
    ck_assert(be->conv_new && be->conv_free && be->conv_scratch_bytes);
    ck_assert(!be->is_host);
#define MO_KERNEL(name, args) ck_assert_msg(be->name, "kernel '%s' is missing", #name);
#include "kernels/kernels.def"
#undef MO_KERNEL
}
END_TEST

START_TEST(it_stays_the_same_table)
{
    ck_assert_ptr_eq(mo_cuda_backend(), mo_cuda_backend());
}
END_TEST

/* A device, or a reason: there is no third. */
START_TEST(a_device_or_a_reason)
{
    char why[512] = "";
    const struct mo_backend *be = mo_cuda_backend();
    struct mo_device *dev = be->open(0, 1, why, sizeof why);
    if (!dev) {
        ck_assert_msg(!strncmp(why, "cuda: ", 6) && strlen(why) > 20, "the reason is '%s'", why);
        return;
    }
    ck_assert(!strncmp(be->describe(dev), "cuda:0", 6));
    ck_assert_int_eq(be->sync(dev, why, sizeof why), 0);
    be->close(dev);
}
END_TEST

START_TEST(a_named_plugin_is_the_only_one)
{
    char why[512] = "";
    setenv("MOPT_CUDA_PLUGIN", "/nowhere/libmopt-cuda.so", 1);
    const struct mo_backend *be = mo_cuda_backend();
    ck_assert_ptr_null(be->alloc);
    ck_assert_ptr_null(be->open(0, 1, why, sizeof why));
    ck_assert_msg(strstr(why, "/nowhere/libmopt-cuda.so"), "the reason is '%s'", why);
}
END_TEST

/* Any other library will do: it has not the function asked for. */
START_TEST(what_is_no_plugin_is_refused)
{
    char why[512] = "";
    setenv("MOPT_CUDA_PLUGIN", "libm.so.6", 1);
    ck_assert_ptr_null(mo_cuda_backend()->open(0, 1, why, sizeof why));
    ck_assert_msg(strstr(why, "no plug-in of mopt"), "the reason is '%s'", why);
}
END_TEST

#else

START_TEST(it_says_that_it_was_not_built)
{
    char why[512] = "";
    ck_assert_ptr_null(mo_cuda_backend()->open(0, 1, why, sizeof why));
    ck_assert_msg(strstr(why, "make CUDA=1"), "the reason is '%s'", why);
}
END_TEST

#endif

Suite *suite_cuda(void);
Suite *suite_cuda(void)
{
    Suite *s = suite_create("cuda");
    TCase *c = tcase_create("cuda");
#if MOPT_WITH_CUDA
    tcase_add_test(c, the_table_is_complete);
    tcase_add_test(c, it_stays_the_same_table);
    tcase_add_test(c, a_device_or_a_reason);
    tcase_add_test(c, a_named_plugin_is_the_only_one);
    tcase_add_test(c, what_is_no_plugin_is_refused);
#else
    tcase_add_test(c, it_says_that_it_was_not_built);
#endif
    suite_add_tcase(s, c);
    return s;
}
