#version 450
// Winograd's transform of the products, bias and rectifier: one item of one tile an
// invocation.
#include "candidates/winograd.glsl"

layout(binding = 0) readonly buffer Source { Item source[]; };
layout(binding = 1) writeonly buffer Target { Item target[]; };
layout(binding = 2) readonly buffer Parameters { Item parameters[]; };

#if M == 2
#define TRANSFORM(m, y) \
    y[0] = m[0] + m[1] + m[2]; \
    y[1] = m[1] - m[2] - m[3];
#else
#define TRANSFORM(m, y) \
    { \
        Item p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = m[3] - m[4]; \
        y[0] = m[0] + p + r; \
        y[1] = q + Scalar(2.0) * s; \
        y[2] = p + Scalar(4.0) * r; \
        y[3] = q + Scalar(8.0) * s + m[5]; \
    }
#endif

#define LOAD(row) \
    given[row] = source[place + (N * row) * step];
#define COLUMN(column) \
    { \
        Item given[N], found[M]; \
        LOADS \
        TRANSFORM(given, found) \
        for (uint i = 0; i < M; i++) \
            tile[i][column] = found[i]; \
        place += step; \
    }
#define ROW(row) \
    { \
        Item found[M]; \
        TRANSFORM(tile[row], found) \
        for (uint i = 0; i < M; i++) { \
            Item value = found[i] + bias; \
            value = max(value, Item(0.0)) + slope * min(value, Item(0.0)); \
            bool inside = INSIDE(target, M * x + i, M * y + row); \
            target[to + i * ITEMS] = value * Scalar(inside ? 1.0 : 0.0); \
        } \
        to += push.target_stride * ITEMS; \
    }

#if M == 2
#define LOADS LOAD(0) LOAD(1) LOAD(2) LOAD(3)
#define COLUMNS COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
#else
#define LOADS LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5)
#define COLUMNS COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3) COLUMN(4) COLUMN(5)
#endif

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint item = gl_GlobalInvocationID.z % ITEMS, quad = gl_GlobalInvocationID.z / ITEMS;
    uint place = quad * push.tile_plane + y * push.tile_stride + x;
    place = place * ITEMS + item;
    uint step = push.quads * push.tile_plane * ITEMS;
    Item bias = parameters[(2 * quad) * ITEMS + item];
    Item slope = parameters[(2 * quad + 1) * ITEMS + item];
    Item tile[M][N];
    COLUMNS
    uint to = ELEMENT(target, quad, M * x, M * y) * ITEMS + item;
    ROW(0) ROW(1)
#if M == 4
    ROW(2) ROW(3)
#endif
}
