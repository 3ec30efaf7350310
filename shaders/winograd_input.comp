#version 450
// Winograd's F(2×2, 3×3), before the products: each block of 4×4 pixels, two apart, as 16
// components (Lavin and Gray 2016, arXiv:1509.09308). A component of a quad is a plane of
// one element a block; components follow each other. One item of one block an invocation:
// as much of a quad as leaves the block within 64 registers. Neighbours share a quad.
#include "upfrost.glsl"

#ifdef FP16
#define Item f16vec4
#define ITEMS 1  // of a quad
#else
#define Item vec2
#define ITEMS 2
#endif

layout(binding = 0) readonly buffer Source { Item source[]; };
layout(binding = 1) writeonly buffer Target { Item target[]; };
layout(push_constant) uniform Push
{
    LAYOUT(source);  // its base is that of the first block's first pixel
    LAYOUT(target);  // of blocks
} push;
layout(constant_id = 0) const uint SOURCE_QUADS = 1;

Item[4] transform(Item d[4])
{
    return Item[4](d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]);
}

#define COLUMN(column) \
    { \
        uint element = corner + column * ITEMS; \
        Item given[4]; \
        for (uint i = 0; i < 4; i++) { \
            given[i] = source[element]; \
            element += push.source_stride * ITEMS; \
        } \
        given = transform(given); \
        for (uint i = 0; i < 4; i++) \
            block[i][column] = given[i]; \
    }

#define ROW(row) \
    { \
        Item found[4] = transform(block[row]); \
        for (uint i = 0; i < 4; i++) { \
            target[place] = found[i]; \
            place += component; \
        } \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x / ITEMS, item = gl_GlobalInvocationID.x % ITEMS;
    uint y = gl_GlobalInvocationID.y, quad = gl_WorkGroupID.z;
    uint corner = ELEMENT(source, quad, 2 * x, 2 * y) * ITEMS + item;
    uint place = ELEMENT(target, quad, x, y) * ITEMS + item;
    uint component = SOURCE_QUADS * push.target_plane * ITEMS;
    Item block[4][4];
    COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
    ROW(0) ROW(1) ROW(2) ROW(3)
}
