#version 450
// Products of one component: TILES tiles of QUADS output quads an invocation. Neighbouring
// invocations read neighbouring tiles.
#define GROUP_X 64
#define GROUP_Y 1
#include "upfrost.glsl"

layout(binding = 0) readonly buffer Source { Quad source[]; };
layout(binding = 1) writeonly buffer Target { Quad target[]; };
layout(binding = 2) readonly buffer Weights { Quad weights[]; };
layout(push_constant) uniform Push
{
    uint tile_plane;
    uint out_quads;
} push;
layout(constant_id = 0) const uint IN_QUADS = 1;

#define STEP \
    { \
        Quad v[TILES]; \
        for (uint i = 0; i < TILES; i++) \
            v[i] = source[place + i * GROUP_X]; \
        for (uint q = 0; q < QUADS; q++) { \
            uint first = weight + q * IN_QUADS * 4; \
            Quad w = weights[first]; \
            for (uint i = 0; i < TILES; i++) \
                SUM[q][i] += v[i].x * w; \
            w = weights[first + 1]; \
            for (uint i = 0; i < TILES; i++) \
                SUM[q][i] += v[i].y * w; \
            w = weights[first + 2]; \
            for (uint i = 0; i < TILES; i++) \
                SUM[q][i] += v[i].z * w; \
            w = weights[first + 3]; \
            for (uint i = 0; i < TILES; i++) \
                SUM[q][i] += v[i].w * w; \
        } \
        place += push.tile_plane; \
        weight += 4; \
    }

void main()
{
    uint quad = gl_WorkGroupID.x * QUADS, component = gl_WorkGroupID.z;
    uint tile = gl_WorkGroupID.y * GROUP_X * TILES + gl_LocalInvocationID.x;
    vec4 sum[QUADS][TILES];
    for (uint q = 0; q < QUADS; q++)
        for (uint i = 0; i < TILES; i++)
            sum[q][i] = vec4(0.0);
    uint place = component * IN_QUADS * push.tile_plane + tile;
    uint weight = (component * push.out_quads + quad) * IN_QUADS * 4;
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad += 4) {
#ifdef FP16
#define SUM part
        Quad part[QUADS][TILES];
        for (uint q = 0; q < QUADS; q++)
            for (uint i = 0; i < TILES; i++)
                part[q][i] = Quad(0.0);
#else
#define SUM sum
#endif
        STEP STEP STEP STEP
#ifdef FP16
        for (uint q = 0; q < QUADS; q++)
            for (uint i = 0; i < TILES; i++)
                sum[q][i] += vec4(part[q][i]);
#endif
    }
    uint to = (component * push.out_quads + quad) * push.tile_plane + tile;
    for (uint q = 0; q < QUADS; q++)
        for (uint i = 0; i < TILES; i++)
            target[to + q * push.tile_plane + i * GROUP_X] = Quad(sum[q][i]);
}
