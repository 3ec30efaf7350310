#version 450
// Winograd's products: a 1×1 convolution in groups, one for each component, of which
// nothing but the products is wanted. TILE_W elements of a plane and TILE_H output slices
// an invocation. Half-precision sums run over up to four input slices, since one of four
// products would cost as much to add up as to compute.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Pack4 source[]; };
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
layout(binding = 2) readonly buffer Weights { Pack4 weights[]; };
layout(push_constant) uniform Push
{
    uint plane;
    uint weights_base;
} push;
layout(constant_id = 0) const uint IN_SLICES = 1;
layout(constant_id = 1) const uint OUT_SLICES = 1;  // of a component

#define SLICES for (uint q = 0; q < TILE_H; q++)
#define PLACES for (uint i = 0; i < TILE_W; i++)

// Products of one input slice.
#define STEP \
    { \
        Pack4 w[TILE_H][4]; \
        SLICES for (uint k = 0; k < 4; k++) \
            w[q][k] = weights[weight + q * 4 * IN_SLICES + k]; \
        PLACES { \
            Pack4 v = source[element + i * GROUP_X]; \
            SLICES SUM[q][i] = \
                SUM[q][i] + v.x * w[q][0] + v.y * w[q][1] + v.z * w[q][2] + v.w * w[q][3]; \
        } \
        weight += 4; \
        element += push.plane; \
    }

void main()
{
    uint slice = TILE_H * gl_WorkGroupID.x;
    uint place = gl_WorkGroupID.y * GROUP_X * TILE_W + gl_LocalInvocationID.x;
    uint element = slice / OUT_SLICES * IN_SLICES * push.plane + place;
    uint weight = push.weights_base + slice * IN_SLICES * 4;
    vec4 sum[TILE_H][TILE_W];
    SLICES PLACES sum[q][i] = vec4(0.0);
#ifdef FP16
#define SUM part
    // Spelled out as often as needed, since Mesa does not unroll a loop of this size.
    const uint block = IN_SLICES % 4 == 0 ? 4 : IN_SLICES % 2 == 0 ? 2 : 1;
    for (uint input_slice = 0; input_slice < IN_SLICES; input_slice += block) {
        Pack4 part[TILE_H][TILE_W];
        SLICES PLACES part[q][i] = Pack4(0.0);
        STEP
        if (block > 1) {
            STEP
        }
        if (block > 2) {
            STEP
            STEP
        }
        SLICES PLACES sum[q][i] += vec4(part[q][i]);
    }
#else
#define SUM sum
    for (uint input_slice = 0; input_slice < IN_SLICES; input_slice++)
        STEP
#endif
    uint to = slice * push.plane + place;
    SLICES PLACES target[to + q * push.plane + i * GROUP_X] = Pack4(sum[q][i]);
}
