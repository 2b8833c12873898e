/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that travel: from a trainer through satchel-export, and back through satchel-predict, as
 * a user runs them. Usage: test_weights TRAINER PREDICT EXPORT IMAGES */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/file.h"
#include "onnx.pb-c.h"
#include "tests/unit/testing.h"
#include "tools/png.h"
#include "trainer/safetensors.h"

enum { COMMAND_BYTES = 4096, CLASSES = 1000, NPY_HEADER = 256, FILE_MAX = 64 << 20 };

static const char *trainer, *predict, *export, *images, *directory;

/* The exit status of a shell's command in the test's directory; out and err hold what it said. */
static int run(const char *format, ...)
{
    char command[COMMAND_BYTES], all[2 * COMMAND_BYTES];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    snprintf(all, sizeof all, "cd '%s' && %s >out 2>err", directory, command);
    int status = system(all);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static uint8_t *read_bytes(const char *name, size_t *bytes)
{
    char path[TESTING_PATH_BYTES];
    uint8_t *data;
    assert_int_equal(file_read(&data, bytes, testing_path(path, directory, name), FILE_MAX), 0);
    return data;
}

static void expect_text(const char *name, const char *part)
{
    size_t bytes;
    char *text = (char *)read_bytes(name, &bytes);
    if (!strstr(text, part))
        fail_msg("'%s' does not hold '%s'", text, part);
    free(text);
}

/* Rows of a logits file; the caller frees. */
static float *read_logits(const char *name, size_t rows)
{
    size_t bytes;
    uint8_t *data = read_bytes(name, &bytes);
    float *logits = malloc(rows * CLASSES * sizeof *logits);
    assert_memory_equal(data, "\x93NUMPY\x01", 8);
    assert_int_equal(bytes, NPY_HEADER + rows * CLASSES * sizeof *logits);
    memcpy(logits, data + NPY_HEADER, bytes - NPY_HEADER);
    free(data);
    return logits;
}

static void train(const char *model, const char *out)
{
    assert_int_equal(
        run("%s --loaders synthetic --backend ref --model %s --size 32 --total-batch 8 "
            "--micro-batch 8 --max-steps 2 --lr 0.01 --interpolation bilinear --out %s",
            trainer, model, out),
        0);
}

static int open_place(void **state)
{
    directory = testing_directory();
    train("resnet18d-w4", "d");
    return 0;
}

/* What is exported in timm's names gives the same logits as the checkpoint, to the last bit. */
static void timm_file_is_the_same(void **state)
{
    const char *const files = "'%s'/rgb.jpg '%s'/grey.jpg '%s'/rgb.png";
    char list[COMMAND_BYTES];
    snprintf(list, sizeof list, files, images, images, images);
    assert_int_equal(run("%s d/last.safetensors --timm t.safetensors", export), 0);
    expect_text("err", "timm has no network like resnet18d-w4");
    assert_int_equal(
        run("%s d/last.safetensors %s --logits a.npy --csv a.csv --top 2", predict, list), 0);
    assert_int_equal(run("%s t.safetensors %s --logits b.npy", predict, list), 0);
    expect_text("out", "rgb.png: class ");
    float *a = read_logits("a.npy", 3), *b = read_logits("b.npy", 3);
    assert_memory_equal(a, b, 3 * CLASSES * sizeof *a);
    assert_memory_not_equal(a, a + CLASSES, CLASSES * sizeof *a);
    free(a);
    free(b);
    expect_text("a.csv", "image,label,class1,name1,probability1,class2,name2,probability2\n");
    expect_text("a.csv", "grey.jpg,,");
}

/* int64 scalars as PyTorch has them, and no momentum. */
static void timm_file_has_what_pytorch_wants(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct safetensors *file;
    assert_int_equal(run("%s d/last.safetensors --timm t.safetensors", export), 0);
    assert_int_equal(safetensors_open(&file, testing_path(path, directory, "t.safetensors")), 0);
    const struct safetensors_tensor *steps = safetensors_find(file, "bn1.num_batches_tracked");
    assert_non_null(steps);
    assert_string_equal(steps->dtype_name, "I64");
    assert_true(steps->rank == 0 && steps->offset % 8 == 0);
    assert_non_null(safetensors_find(file, "layer4.1.bn2.num_batches_tracked"));
    assert_null(safetensors_find(file, "momentum.fc.weight"));
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    safetensors_close(file);
}

static void variant_a_is_refused_for_timm(void **state)
{
    train("resnet18a-w4", "a");
    assert_int_equal(run("%s a/last.safetensors --timm a.safetensors", export), 1);
    expect_text("err", "stride in the first 1x1");
    assert_int_equal(run("%s a/last.safetensors --onnx a.onnx", export), 0);
    assert_int_equal(run("%s a/last.safetensors", export), 2);
}

/* Which names are defined so far. */
struct names {
    const char *list[1024];
    size_t count;
};

static bool is_defined(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i], name) == 0)
            return true;
    return false;
}

/* Every operator reads what is there before it, nothing is defined twice, and weights are whole. */
static void onnx_graph_is_sound(void **state)
{
    size_t bytes;
    struct names names = {.count = 0};
    assert_int_equal(run("%s d/last.safetensors --onnx d.onnx", export), 0);
    uint8_t *data = read_bytes("d.onnx", &bytes);
    Onnx__ModelProto *model = onnx__model_proto__unpack(NULL, bytes, data);
    assert_non_null(model);
    const Onnx__GraphProto *graph = model->graph;
    names.list[names.count++] = graph->input[0]->name;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const Onnx__TensorProto *tensor = graph->initializer[i];
        size_t count = 1;
        for (size_t d = 0; d < tensor->n_dims; d++)
            count *= (size_t)tensor->dims[d];
        assert_int_equal(tensor->raw_data.len, count * sizeof(float));
        assert_false(is_defined(&names, tensor->name));
        names.list[names.count++] = tensor->name;
    }
    for (size_t i = 0; i < graph->n_node; i++) {
        for (size_t k = 0; k < graph->node[i]->n_input; k++)
            assert_true(is_defined(&names, graph->node[i]->input[k]));
        assert_false(is_defined(&names, graph->node[i]->output[0]));
        names.list[names.count++] = graph->node[i]->output[0];
    }
    assert_true(is_defined(&names, graph->output[0]->name));
    assert_string_equal(graph->output[0]->name, "logits");
    onnx__model_proto__free_unpacked(model, NULL);
    free(data);
}

static void write_picture(const char *name, const uint8_t *pixels, unsigned size)
{
    char path[TESTING_PATH_BYTES];
    uint8_t *png;
    size_t bytes;
    assert_int_equal(png_encode(&png, &bytes, pixels, size, size, 3), 0);
    assert_int_equal(file_write_atomic(testing_path(path, directory, name), png, bytes), 0);
    free(png);
}

/* A picture and its mirror image, at the network's own size, so that no resize comes between. */
static void write_mirrored_pictures(unsigned size)
{
    uint64_t seed = testing_seed();
    uint8_t picture[33 * 33 * 3], mirrored[sizeof picture];
    assert_true(size <= 33);
    for (unsigned i = 0; i < size * size * 3; i++)
        picture[i] = (uint8_t)testing_random(&seed);
    for (unsigned y = 0; y < size; y++)
        for (unsigned x = 0; x < size; x++)
            memcpy(&mirrored[(y * size + x) * 3], &picture[(y * size + size - 1 - x) * 3], 3);
    write_picture("picture.png", picture, size);
    write_picture("mirrored.png", mirrored, size);
}

static void flip_is_the_mean_of_both_views(void **state)
{
    const unsigned sizes[] = {32, 33};
    for (size_t i = 0; i < 2; i++) {
        write_mirrored_pictures(sizes[i]);
        const char *const format = "%s d/last.safetensors picture.png mirrored.png --eval-size %u "
                                   "--resize-short %u --tta %s --logits %s.npy --json";
        assert_int_equal(run(format, predict, sizes[i], sizes[i], "none", "none"), 0);
        assert_int_equal(run(format, predict, sizes[i], sizes[i], "flip", "flip"), 0);
        expect_text("out", "\"tta\":\"flip\"");
        float *each = read_logits("none.npy", 2), *both = read_logits("flip.npy", 2);
        assert_memory_not_equal(each, each + CLASSES, CLASSES * sizeof *each);
        for (int k = 0; k < CLASSES; k++) {
            float mean = (each[k] + each[CLASSES + k]) / 2;
            assert_true(both[k] == mean && both[CLASSES + k] == mean);
        }
        free(each);
        free(both);
    }
}

/* 32 of them are more than a chunk of the stream may have. */
static void large_images_come_in_smaller_batches(void **state)
{
    assert_int_equal(run("cp '%s'/rgb.jpg i.jpg", images), 0);
    /* Of 1000 px, 5 are a batch. */
    assert_int_equal(run("%s d/last.safetensors i.jpg i.jpg i.jpg i.jpg i.jpg i.jpg --eval-size "
                         "1000 --logits l.npy --json",
                         predict),
                     0);
    expect_text("out", "{\"samples\":6,\"damaged\":0}");
    float *logits = read_logits("l.npy", 6);
    assert_memory_equal(logits, logits + 5 * CLASSES, CLASSES * sizeof *logits);
    free(logits);
}

static void damaged_image_is_left_out(void **state)
{
    assert_int_equal(run("head -c 600 '%s'/rgb.jpg > cut.jpg", images), 0);
    assert_int_equal(
        run("%s d/last.safetensors cut.jpg '%s'/rgb.jpg --logits c.npy --json", predict, images),
        0);
    expect_text("out", "{\"samples\":2,\"damaged\":1}");
    expect_text("err", "cut.jpg");
    float *logits = read_logits("c.npy", 2);
    assert_true(logits[0] != logits[0] && logits[CLASSES] == logits[CLASSES]);
    free(logits);
}

/* One line each, that names the file and the tensor. */
static void wrong_files_are_refused(void **state)
{
    const struct {
        const char *make, *part;
    } wrong[] = {
        {"head -c 4000 d/last.safetensors > w.safetensors", "'w.safetensors'"},
        {"sed 's/layer2.0.conv1.weight/layer2.0.convX.weight/' d/last.safetensors > w.safetensors",
         "'w.safetensors'"},
        {"printf 'no weights at all, but text' > w.safetensors", "'w.safetensors'"},
        {"printf '\\0\\0\\0\\0\\0\\0\\0\\020{}' > w.safetensors", "'w.safetensors'"},
        {": > w.safetensors", "'w.safetensors'"},
        {"rm w.safetensors", "'w.safetensors'"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(run("%s", wrong[i].make), 0);
        assert_int_equal(run("%s w.safetensors '%s'/rgb.jpg", predict, images), 1);
        expect_text("err", wrong[i].part);
        assert_int_equal(run("test $(wc -l < err) = 1"), 0);
    }
    assert_int_equal(run("%s d/last.safetensors --model resnet50d '%s'/rgb.jpg", predict, images),
                     1);
    expect_text("err", "'d/last.safetensors'");
    assert_int_equal(run("%s d/last.safetensors", predict), 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timm_file_is_the_same),
        cmocka_unit_test(timm_file_has_what_pytorch_wants),
        cmocka_unit_test(variant_a_is_refused_for_timm),
        cmocka_unit_test(onnx_graph_is_sound),
        cmocka_unit_test(flip_is_the_mean_of_both_views),
        cmocka_unit_test(large_images_come_in_smaller_batches),
        cmocka_unit_test(damaged_image_is_left_out),
        cmocka_unit_test(wrong_files_are_refused),
    };
    if (argc != 5)
        return 2;
    trainer = argv[1];
    predict = argv[2];
    export = argv[3];
    images = argv[4];
    return cmocka_run_group_tests(tests, open_place, NULL);
}
