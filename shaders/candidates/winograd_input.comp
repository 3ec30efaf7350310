#version 450
// Winograd's transform of the input: one item of one tile an invocation.
#include "candidates/winograd.glsl"

layout(binding = 0) readonly buffer Source { Item source[]; };
layout(binding = 1) writeonly buffer Target { Item target[]; };

#if M == 2
#define TRANSFORM(d, t) \
    t[0] = d[0] - d[2]; \
    t[1] = d[1] + d[2]; \
    t[2] = d[2] - d[1]; \
    t[3] = d[1] - d[3];
#else
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
#endif
#define TWO Scalar(2.0)
#define FOUR Scalar(4.0)
#define FIVE Scalar(5.0)

#define LOAD(row) \
    given[row] = source[element]; \
    element += push.source_stride * ITEMS;
#define COLUMN(column) \
    { \
        uint element = corner + column * ITEMS; \
        Item given[N], found[N]; \
        LOADS \
        TRANSFORM(given, found) \
        for (uint i = 0; i < N; i++) \
            tile[i][column] = found[i]; \
    }
#define ROW(row) \
    { \
        Item found[N]; \
        TRANSFORM(tile[row], found) \
        for (uint i = 0; i < N; i++) { \
            target[place] = found[i]; \
            place += step; \
        } \
    }

#if M == 2
#define LOADS LOAD(0) LOAD(1) LOAD(2) LOAD(3)
#define COLUMNS COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
#define ROWS ROW(0) ROW(1) ROW(2) ROW(3)
#else
#define LOADS LOAD(0) LOAD(1) LOAD(2) LOAD(3) LOAD(4) LOAD(5)
#define COLUMNS COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3) COLUMN(4) COLUMN(5)
#define ROWS ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
#endif

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint item = gl_GlobalInvocationID.z % ITEMS, quad = gl_GlobalInvocationID.z / ITEMS;
    uint corner = ELEMENT(source, quad, M * x, M * y) - push.source_stride - 1;
    corner = corner * ITEMS + item;
    uint place = quad * push.tile_plane + y * push.tile_stride + x;
    place = place * ITEMS + item;
    uint step = push.quads * push.tile_plane * ITEMS;
    Item tile[N][N];
    COLUMNS
    ROWS
}
