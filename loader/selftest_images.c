/* SPDX-License-Identifier: Apache-2.0 */
/* The self-test's images, as they lie in SELFTEST_FOLDER. */
#include "loader/selftest.h"

/* clang-format off */
#define IMAGE(symbol, file)                                                                        \
    __asm__(".section .rodata\n.balign 64\n"                                                       \
            ".local selftest_" #symbol "\n.local selftest_" #symbol "_end\n"                       \
            "selftest_" #symbol ":\n.incbin \"" SELFTEST_FOLDER "/" file "\"\n"                    \
            "selftest_" #symbol "_end:\n.byte 0\n.previous\n");                                    \
    extern const uint8_t selftest_##symbol[], selftest_##symbol##_end[];
/* clang-format on */

IMAGE(one, "1x1.jpg")
IMAGE(tiny, "3x2.jpg")
IMAGE(s420, "420.jpg")
IMAGE(s422, "422.jpg")
IMAGE(s440, "440.jpg")
IMAGE(s444, "444.jpg")
IMAGE(cmyk, "cmyk.jpg")
IMAGE(grey, "grey.jpg")
IMAGE(progressive, "progressive.jpg")
IMAGE(restart, "restart.jpg")
IMAGE(rgb, "rgb.jpg")
IMAGE(wide, "wide.jpg")
IMAGE(palette, "palette.png")
IMAGE(grey16, "grey16.png")

const struct selftest_image selftest_images[] = {
    {"1x1.jpg", selftest_one, selftest_one_end},
    {"3x2.jpg", selftest_tiny, selftest_tiny_end},
    {"420.jpg", selftest_s420, selftest_s420_end},
    {"422.jpg", selftest_s422, selftest_s422_end},
    {"440.jpg", selftest_s440, selftest_s440_end},
    {"444.jpg", selftest_s444, selftest_s444_end},
    {"cmyk.jpg", selftest_cmyk, selftest_cmyk_end},
    {"grey.jpg", selftest_grey, selftest_grey_end},
    {"progressive.jpg", selftest_progressive, selftest_progressive_end},
    {"restart.jpg", selftest_restart, selftest_restart_end},
    {"rgb.jpg", selftest_rgb, selftest_rgb_end},
    {"wide.jpg", selftest_wide, selftest_wide_end},
    {"palette.png", selftest_palette, selftest_palette_end},
    {"grey16.png", selftest_grey16, selftest_grey16_end},
};
const size_t selftest_image_count = sizeof selftest_images / sizeof selftest_images[0];
