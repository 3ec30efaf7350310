#version 450
// F(4×4, 3×3)'s transform of the products, bias and rectifier: one item of one block an
// invocation.
#include "candidates/winograd4.glsl"

layout(binding = 0) readonly buffer Source { Item source[]; };
layout(binding = 1) writeonly buffer Target { Item target[]; };
layout(binding = 2) readonly buffer Parameters { Item parameters[]; };

#define TRANSFORM(m, y) \
    { \
        Item p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = m[3] - m[4]; \
        y[0] = m[0] + p + r; \
        y[1] = q + Scalar(2.0) * s; \
        y[2] = p + Scalar(4.0) * r; \
        y[3] = q + Scalar(8.0) * s + m[5]; \
    }

#define LOAD(row) \
    given[row] = source[place + (6 * row) * step];
#define COLUMN(column) \
    { \
        Item given[6], found[4]; \
        LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5) \
        TRANSFORM(given, found) \
        for (uint i = 0; i < 4; i++) \
            block[i][column] = found[i]; \
        place += step; \
    }
#define ROW(row) \
    { \
        Item found[4]; \
        TRANSFORM(block[row], found) \
        for (uint i = 0; i < 4; i++) { \
            Item value = found[i] + bias; \
            value = max(value, Item(0.0)) + slope * min(value, Item(0.0)); \
            bool inside = INSIDE(target, 4 * x + i, 4 * y + row); \
            target[to + i * ITEMS] = value * Scalar(inside ? 1.0 : 0.0); \
        } \
        to += push.target_stride * ITEMS; \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint item = gl_GlobalInvocationID.z % ITEMS, slice = gl_GlobalInvocationID.z / ITEMS;
    uint place = slice * push.block_plane + y * push.block_stride + x;
    place = place * ITEMS + item;
    uint step = push.slices * push.block_plane * ITEMS;
    Item bias = parameters[(2 * slice) * ITEMS + item];
    Item slope = parameters[(2 * slice + 1) * ITEMS + item];
    Item block[4][6];
    COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3) COLUMN(4) COLUMN(5)
    uint to = ELEMENT(target, slice, 4 * x, 4 * y) * ITEMS + item;
    ROW(0) ROW(1) ROW(2) ROW(3)
}
