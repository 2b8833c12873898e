/* SPDX-License-Identifier: Apache-2.0 */
/* A libcuda.so.1 for machines without one: it has no device, and takes every module that is loaded.
 * With it cuDNN compiles its run-time engines for a device that is only described. For tests alone:
 * nothing can be launched. */
#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100, VERSION = 13000 };

#define EXPORT __attribute__((visibility("default")))

static int token; /* what handles point at */

/* Every other entry point. */
static int absent(void)
{
    return NO_DEVICE;
}

/* Those that cuDNN looks up before it compiles anything, and does not call. */
#define ABSENT(name)                                                                               \
    EXPORT int name(void);                                                                         \
    EXPORT int name(void)                                                                          \
    {                                                                                              \
        return absent();                                                                           \
    }

ABSENT(cuCtxGetCurrent)
ABSENT(cuCtxGetLimit)
ABSENT(cuCtxPopCurrent)
ABSENT(cuCtxPushCurrent)
ABSENT(cuDeviceGet)
ABSENT(cuKernelGetAttribute)
ABSENT(cuLaunchCooperativeKernel)
ABSENT(cuLaunchKernel)
ABSENT(cuLaunchKernelEx)
ABSENT(cuLibraryLoadFromFile)
ABSENT(cuLinkAddData)
ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate)
ABSENT(cuLinkDestroy)
ABSENT(cuOccupancyMaxPotentialClusterSize)
ABSENT(cuStreamGetCtx)

EXPORT int cuInit(unsigned flags);
EXPORT int cuInit(unsigned flags)
{
    return NO_DEVICE;
}

EXPORT int cuDriverGetVersion(int *version);
EXPORT int cuDriverGetVersion(int *version)
{
    *version = VERSION;
    return SUCCESS;
}

EXPORT int cuDeviceGetCount(int *count);
EXPORT int cuDeviceGetCount(int *count)
{
    *count = 0;
    return NO_DEVICE;
}

EXPORT int cuGetErrorString(int error, const char **text);
EXPORT int cuGetErrorString(int error, const char **text)
{
    *text = error ? "no device" : "no error";
    return SUCCESS;
}

EXPORT int cuGetErrorName(int error, const char **text);
EXPORT int cuGetErrorName(int error, const char **text)
{
    return cuGetErrorString(error, text);
}

EXPORT int cuLibraryLoadData(void **library, const void *code, void *jit, void *jit_values,
                             unsigned jit_count, void *options, void *values, unsigned count);
EXPORT int cuLibraryLoadData(void **library, const void *code, void *jit, void *jit_values,
                             unsigned jit_count, void *options, void *values, unsigned count)
{
    *library = &token;
    return code ? SUCCESS : NO_DEVICE;
}

EXPORT int cuLibraryUnload(void *library);
EXPORT int cuLibraryUnload(void *library)
{
    return SUCCESS;
}

EXPORT int cuLibraryGetKernel(void **kernel, void *library, const char *name);
EXPORT int cuLibraryGetKernel(void **kernel, void *library, const char *name)
{
    *kernel = &token;
    return name && *name ? SUCCESS : NO_DEVICE;
}

EXPORT int cuKernelGetFunction(void **function, void *kernel);
EXPORT int cuKernelGetFunction(void **function, void *kernel)
{
    *function = kernel;
    return SUCCESS;
}

EXPORT int cuKernelSetAttribute(int attribute, int value, void *kernel, int device);
EXPORT int cuKernelSetAttribute(int attribute, int value, void *kernel, int device)
{
    return SUCCESS;
}

EXPORT int cuFuncSetAttribute(void *function, int attribute, int value);
EXPORT int cuFuncSetAttribute(void *function, int attribute, int value)
{
    return SUCCESS;
}

EXPORT int cuModuleLoadData(void **module, const void *code);
EXPORT int cuModuleLoadData(void **module, const void *code)
{
    *module = &token;
    return code ? SUCCESS : NO_DEVICE;
}

EXPORT int cuModuleLoadDataEx(void **module, const void *code, unsigned count, void *options,
                              void *values);
EXPORT int cuModuleLoadDataEx(void **module, const void *code, unsigned count, void *options,
                              void *values)
{
    return cuModuleLoadData(module, code);
}

EXPORT int cuModuleGetFunction(void **function, void *module, const char *name);
EXPORT int cuModuleGetFunction(void **function, void *module, const char *name)
{
    *function = module;
    return SUCCESS;
}

EXPORT int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                               int *status);
EXPORT int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                               int *status)
{
    void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    void *found = self ? dlsym(self, name) : NULL;
    if (!found && strcmp(name, "cuGetProcAddress") == 0)
        found = (void *)cuGetProcAddress_v2;
    *function = found ? found : (void *)absent;
    if (status)
        *status = 0;
    return SUCCESS;
}

EXPORT int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags);
EXPORT int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags)
{
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
