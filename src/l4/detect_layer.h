/* The layer that picks a chain by what the client speaks: ml.detect. */
#ifndef L4_DETECT_LAYER_H
#define L4_DETECT_LAYER_H

#include "l4/detect.h"
#include "monolake.h"
#include "proxy/chain.h"

#include <stdint.h>

struct l4_detect_layer {
    /* What does not come in time is other; NULL: what stands behind the layer in its chain. */
    const struct chain *chains[L4_PROTOCOL_COUNT];
    uint32_t timeout_ms;
};

/* self is a struct l4_detect_layer. */
extern const ml_layer l4_detect_layer;

#endif
