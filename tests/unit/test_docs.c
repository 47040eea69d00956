/* The guides name files, functions and types; they must be there. Words in backticks that hold a slash are
 * files or folders; words that begin with mo_, mopt_, MO_ or suite_ must occur in the tree. NAME stands for anything. */
#include <check.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    text[n] = 0;
    fclose(f);
    return text;
}

static int is_file(const char *word)
{
    glob_t found = {0};
    char pattern[256];
    size_t n = 0;
    for (const char *p = word; *p && n < sizeof pattern - 2;) {
        if (!strncmp(p, "NAME", 4)) {
            pattern[n++] = '*';
            p += 4;
        } else
            pattern[n++] = *p++;
    }
    pattern[n] = 0;
    int ok = glob(pattern, GLOB_BRACE, NULL, &found) == 0;
    globfree(&found);
    return ok;
}

static int is_name(const char *word)
{
    char command[512], name[128];
    size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    snprintf(name, sizeof name, "%.*s", (int)n, word);
    char *any = strstr(name, "NAME");
    if (any)
        *any = 0;
    snprintf(command, sizeof command, "grep -rqF '%s' lib kernels formats cmd tests --include='*.[ch]' --include='*.def'", name);
    return system(command) == 0;
}

static void check_word(const char *path, const char *word)
{
    int names = !strncmp(word, "mo_", 3) || !strncmp(word, "mopt_", 5) || !strncmp(word, "MO_", 3) || !strncmp(word, "suite_", 6);
    if (strchr(word, ' ') || strchr(word, '$') || strchr(word, '='))
        return;
    if (names)
        ck_assert_msg(is_name(word), "%s names '%s', which is nowhere", path, word);
    else if (strchr(word, '/') && strncmp(word, "../", 3) && word[0] != '/' && word[0] != '-')
        ck_assert_msg(is_file(word), "%s names '%s', which is not there", path, word);
}

START_TEST(what_the_guides_name_is_there)
{
    static const char *const guides[] = {"docs/ADDING-A-PASS.md", "docs/ADDING-AN-OP.md", "docs/ADDING-A-KERNEL.md",
                                         "docs/ARCHITECTURE.md", "docs/TESTING.md"};
    char *text = read_all(guides[_i]), word[256];
    int n_words = 0;
    for (char *p = strchr(text, '`'); p; p = strchr(p, '`')) {
        char *end = strchr(p + 1, '`');
        if (!end)
            break;
        snprintf(word, sizeof word, "%.*s", (int)(end - p - 1), p + 1);
        check_word(guides[_i], word);
        n_words++;
        p = end + 1;
    }
    ck_assert_int_gt(n_words, 5);
    free(text);
}
END_TEST

/* README's links lead somewhere. */
START_TEST(links_of_the_readme)
{
    char *text = read_all("README.md"), path[256];
    for (char *p = strstr(text, "]("); p; p = strstr(p + 1, "](")) {
        snprintf(path, sizeof path, "%.*s", (int)strcspn(p + 2, ")#"), p + 2);
        ck_assert_msg(!access(path, F_OK), "README.md links to %s", path);
    }
    free(text);
}
END_TEST

Suite *suite_docs(void);
Suite *suite_docs(void)
{
    Suite *s = suite_create("docs");
    TCase *t = tcase_create("docs");
    tcase_add_loop_test(t, what_the_guides_name_is_there, 0, 5);
    tcase_add_test(t, links_of_the_readme);
    suite_add_tcase(s, t);
    return s;
}
