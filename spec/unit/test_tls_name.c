/* Common names in subjects as OpenSSL and GnuTLS write them. */
#include "tls/name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* `name` NULL: there is none. The copy has no byte to spare, so that ASan sees one too many. */
static void expect_name(const char *subject, const char *name)
{
    char *out = malloc(strlen(subject) + 1);
    ssize_t len = tls_common_name(subject, out);
    if (len != (name ? (ssize_t)strlen(name) : -1))
        fail_msg("%s: %zd", subject, len);
    if (name)
        assert_memory_equal(out, name, (size_t)len);
    free(out);
}

static void names_are_found_wherever_they_stand(void **state)
{
    (void)state;
    expect_name("CN=alice", "alice");
    expect_name("CN=alice,O=Example", "alice");
    expect_name("O=Example,CN=alice", "alice");
    expect_name("O=Example+CN=alice,C=DE", "alice");
    expect_name("CN=first,CN=second", "first");
    expect_name("CN=", "");
    expect_name("CN=a = b", "a = b");
}

static void other_attributes_are_none(void **state)
{
    (void)state;
    expect_name("", NULL);
    expect_name("O=Example", NULL);
    expect_name("O=CN=alice", NULL);
    expect_name("xCN=alice", NULL);
    expect_name("O=a\\,CN=alice", NULL);
    expect_name("O=a\\", NULL);
}

static void escapes_are_undone(void **state)
{
    (void)state;
    expect_name("CN=Smith\\, Alice,O=Example", "Smith, Alice");
    expect_name("O=a\\,b,CN=c\\+d", "c+d");
    expect_name("CN=\\C3\\A4\\2c", "\xc3\xa4,");
    expect_name("CN=a\\\\,O=b", "a\\");
    expect_name("CN=a\\", "a\\");
    expect_name("CN=\\4", "4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found_wherever_they_stand),
        cmocka_unit_test(other_attributes_are_none),
        cmocka_unit_test(escapes_are_undone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
