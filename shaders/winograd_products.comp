#version 450
// Winograd's products: a 1×1 convolution in groups, one for each component, of which
// nothing but the products is wanted. TILE_W elements of a plane and TILE_H output quads
// an invocation. Half-precision sums run over up to four input quads, since one of four
// products would cost as much to add up as to compute.
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Quad source[]; };
layout(binding = 1) writeonly buffer Target { Quad target[]; };
layout(binding = 2) readonly buffer Weights { Quad weights[]; };
layout(push_constant) uniform Push
{
    uint plane;
    uint weights_base;
} push;
layout(constant_id = 0) const uint IN_QUADS = 1;
layout(constant_id = 1) const uint OUT_QUADS = 1;  // of a component

#define QUADS for (uint q = 0; q < TILE_H; q++)
#define PLACES for (uint i = 0; i < TILE_W; i++)

// Products of one input quad.
#define STEP \
    { \
        Quad w[TILE_H][4]; \
        QUADS for (uint k = 0; k < 4; k++) \
            w[q][k] = weights[weight + q * 4 * IN_QUADS + k]; \
        PLACES { \
            Quad v = source[element + i * GROUP_X]; \
            QUADS SUM[q][i] = \
                SUM[q][i] + v.x * w[q][0] + v.y * w[q][1] + v.z * w[q][2] + v.w * w[q][3]; \
        } \
        weight += 4; \
        element += push.plane; \
    }

void main()
{
    uint quad = TILE_H * gl_WorkGroupID.x;
    uint place = gl_WorkGroupID.y * GROUP_X * TILE_W + gl_LocalInvocationID.x;
    uint element = quad / OUT_QUADS * IN_QUADS * push.plane + place;
    uint weight = push.weights_base + quad * IN_QUADS * 4;
    vec4 sum[TILE_H][TILE_W];
    QUADS PLACES sum[q][i] = vec4(0.0);
#ifdef FP16
#define SUM part
    // Spelled out as often as needed, since Mesa does not unroll a loop of this size.
    const uint block = IN_QUADS % 4 == 0 ? 4 : IN_QUADS % 2 == 0 ? 2 : 1;
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad += block) {
        Quad part[TILE_H][TILE_W];
        QUADS PLACES part[q][i] = Quad(0.0);
        STEP
        if (block > 1) {
            STEP
        }
        if (block > 2) {
            STEP
            STEP
        }
        QUADS PLACES sum[q][i] += vec4(part[q][i]);
    }
#else
#define SUM sum
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad++)
        STEP
#endif
    uint to = quad * push.plane + place;
    QUADS PLACES target[to + q * push.plane + i * GROUP_X] = Quad(sum[q][i]);
}
