/*
 * monolake.native: layers from shared objects. An object stays loaded until the process ends: code
 * of an old generation may still be running in it. Never suspends.
 */
#include "script/build.h"

#include <assert.h>
#include <dlfcn.h>
#include <string.h>

static const ml_layer *open_layer(lua_State *L, const char *path)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!object)
        luaL_error(L, "native layer: %s", dlerror());
    const ml_layer *layer = dlsym(object, "monolake_layer");
    if (!layer)
        luaL_error(L, "native layer: %s does not export \"monolake_layer\"", path);
    assert(layer); /* luaL_error does not return */
    if (layer->abi != ML_ABI)
        luaL_error(L,
                   "native layer: %s was compiled for ABI %d of monolake.h, this is ABI %d: "
                   "compile it again",
                   path, layer->abi, ML_ABI);
    if (!layer->handle)
        luaL_error(L, "native layer: %s has no handle function", path);
    return layer;
}

/* core.native_step(path, config_json, label) */
int build_native_step(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    const ml_layer *layer = open_layer(L, path);
    void *self = NULL;
    if (layer->create) {
        const char *error = NULL;
        self = layer->create(luaL_checkstring(L, 2), &error);
        if (!self && error)
            return luaL_error(L, "native layer: %s: %s", path, error);
        if (!self)
            return luaL_error(L, "native layer: %s could not be created", path);
    }
    build_step(L, layer, self, 3);
    return 1;
}
