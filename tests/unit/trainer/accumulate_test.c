/* SPDX-License-Identifier: Apache-2.0 */
/* The plan carried out on expressions: what stands in slot 0 must be the tree's definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "trainer/accumulate.h"

enum { SLOTS = 16, TEXT = 1024, LARGEST = 64 };

/* The definition in accumulate.h, written down as it stands there. Appends to text. */
static void define(char *text, int first, int n)
{
    if (n > 1 && n % 2 == 0) {
        strcat(text, "(");
        define(text, first, n / 2);
        strcat(text, "+");
        define(text, first + n / 2, n / 2);
        strcat(text, ")");
        return;
    }
    for (int i = 1; i < n; i++)
        strcat(text, "(");
    for (int i = 0; i < n; i++)
        sprintf(text + strlen(text), i ? "+%d)" : "%d", first + i);
}

/* dst = "(dst+src)" */
static void add(char *dst, const char *src)
{
    size_t left = strlen(dst), right = strlen(src);
    assert_true(left + right + 4 <= TEXT);
    memmove(dst + 1, dst, left);
    dst[0] = '(';
    dst[left + 1] = '+';
    memcpy(dst + left + 2, src, right);
    memcpy(dst + left + 2 + right, ")", 2);
}

/* Leaves the sum of micro-batches first..first+n-1 in slots[0]; returns the slots it touched. */
static int carry_out(char slots[SLOTS][TEXT], int first, int n)
{
    int used = 0;
    for (int i = 0; i < n; i++) {
        struct accumulate_step step;
        accumulate_plan(&step, i, n);
        assert_in_range(step.slot, 0, SLOTS - 1);
        used = step.slot + 1 > used ? step.slot + 1 : used;
        sprintf(slots[step.slot], "%d", first + i);
        for (int k = 0; k < step.adds; k++)
            add(slots[step.add_dst[k]], slots[step.add_src[k]]);
    }
    return used;
}

static void test_sum_is_the_tree(void **unused)
{
    for (int n = 1; n <= LARGEST; n++) {
        static char slots[SLOTS][TEXT];
        char expected[TEXT] = "";
        define(expected, 0, n);
        int used = carry_out(slots, 0, n);
        assert_string_equal(slots[0], expected);
        assert_int_equal(used, accumulate_slots(n));
        int levels = 0;
        while (1 << levels < n)
            levels++;
        assert_true(used <= levels + 1);
    }
}

/* Each rank sums its share, then the ranks' sums are added as a tree: the same expression. */
static void test_ranks_share_the_tree(void **unused)
{
    for (int ranks = 2; ranks <= 8; ranks *= 2)
        for (int share = 1; share * ranks <= LARGEST; share++) {
            static char sums[8][TEXT];
            char expected[TEXT] = "";
            define(expected, 0, share * ranks);
            for (int r = 0; r < ranks; r++) {
                static char slots[SLOTS][TEXT];
                carry_out(slots, r * share, share);
                strcpy(sums[r], slots[0]);
            }
            for (int width = 1; width < ranks; width *= 2)
                for (int r = 0; r < ranks; r += 2 * width) {
                    add(sums[r], sums[r + width]);
                }
            assert_string_equal(sums[0], expected);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_is_the_tree),
        cmocka_unit_test(test_ranks_share_the_tree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
