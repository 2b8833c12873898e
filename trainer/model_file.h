/* SPDX-License-Identifier: Apache-2.0 */
/* A file of weights by itself, without a run around it: which network its tensors are of, and what
 * the images must be like. Checkpoints say so in their metadata; other files (timm, torchvision)
 * are known by their tensors' names and shapes. */
#ifndef TRAINER_MODEL_FILE_H
#define TRAINER_MODEL_FILE_H

#include "common/opt.h"
#include "proto/recipe.h"
#include "trainer/weights.h"

struct model_file {
    struct safetensors *file;
    const char *path; /* the caller's */
    char model[48];   /* "resnet50d" */
    int classes, channels;
    int size_px;               /* of training; 0: not known */
    bool has_recipe;           /* a checkpoint: recipe is what it was trained with */
    struct recipe recipe;      /* else all defaults */
    struct opt_memory *memory; /* owns the recipe's strings */
};

/* Opens a file and works out what it holds. model: the network to take it for, NULL: what the file
 * says. Nothing is read of the tensors yet. ERR_ARG: no such model; ERR_DATA: names file and
 * tensor.
 */
int model_file_open(struct model_file *out, const char *path, const char *model);
void model_file_close(struct model_file *file); /* accepts a zeroed one */

/* Opens a net of this model for images of size_px, a state for it and fills it. slots: as
 * state_open. What is opened belongs to the caller (net_close, state_close). */
int model_file_load(struct net **net, struct state **state, const struct model_file *file,
                    const struct backend_ops *ops, struct backend *backend, int size_px, int slots);

/* Settles how images are to be prepared: what the command line gave, else what the file was trained
 * with, else defaults. program has the recipe's section `given`, parsed. */
void model_file_settle(struct recipe *given, const struct opt_program *program,
                       const struct model_file *file);

#endif
