#version 450
// F(4×4, 3×3)'s transform of the input: one item of one block an invocation.
#include "candidates/winograd4.glsl"

layout(binding = 0) readonly buffer Source { Item source[]; };
layout(binding = 1) writeonly buffer Target { Item target[]; };

#define TWO Scalar(2.0)
#define FOUR Scalar(4.0)
#define FIVE Scalar(5.0)
#define TRANSFORM(d, t) \
    { \
        Item even = d[4] - FOUR * d[2], odd = d[3] - FOUR * d[1]; \
        Item less = d[4] - d[2], twice = TWO * (d[3] - d[1]); \
        t[0] = FOUR * d[0] - FIVE * d[2] + d[4]; \
        t[1] = even + odd; \
        t[2] = even - odd; \
        t[3] = less + twice; \
        t[4] = less - twice; \
        t[5] = FOUR * d[1] - FIVE * d[3] + d[5]; \
    }

#define LOAD(row) \
    given[row] = source[element]; \
    element += push.source_stride * ITEMS;
#define COLUMN(column) \
    { \
        uint element = corner + column * ITEMS; \
        Item given[6], found[6]; \
        LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) \
        TRANSFORM(given, found) \
        for (uint i = 0; i < 6; i++) \
            block[i][column] = found[i]; \
    }
#define ROW(row) \
    { \
        Item found[6]; \
        TRANSFORM(block[row], found) \
        for (uint i = 0; i < 6; i++) { \
            target[place] = found[i]; \
            place += step; \
        } \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint item = gl_GlobalInvocationID.z % ITEMS, slice = gl_GlobalInvocationID.z / ITEMS;
    uint corner = ELEMENT(source, slice, 4 * x, 4 * y) - push.source_stride - 1;
    corner = corner * ITEMS + item;
    uint place = slice * push.block_plane + y * push.block_stride + x;
    place = place * ITEMS + item;
    uint step = push.slices * push.block_plane * ITEMS;
    Item block[6][6];
    COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3) COLUMN(4) COLUMN(5)
    ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
}
