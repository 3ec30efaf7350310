#version 450
// Winograd's F(m×m, 3×3), after the products: the components of a block to its m×m
// pixels, and what follows a convolution; m is TILE_W, 2 or 4. The source are the
// components' planes, as winograd_input.comp writes its own. One block of one output slice
// an invocation.
//
// LEADS is defined for blocks that may begin before the first pixel. What of them is there
// belongs to the end of the plane or of the row, and is of its margin.
#include "conv.glsl"

#define BLOCK TILE_W
#define SIDE (BLOCK + 2)

#if BLOCK == 2
#define ROWS ROW(0) ROW(1) ROW(2) ROW(3)
vec4[BLOCK] transform(vec4 m[SIDE])
{
    return vec4[BLOCK](m[0] + m[1] + m[2], m[1] - m[2] - m[3]);
}
#else
#define ROWS ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
vec4[BLOCK] transform(vec4 m[SIDE])
{
    vec4 p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = m[3] - m[4];
    return vec4[BLOCK](
        m[0] + p + r, q + 2.0 * s, p + 4.0 * r, q + 8.0 * s + m[5]
    );
}
#endif

// A row of components to the pixels' shares of it.
#define ROW(row) \
    { \
        vec4 given[SIDE]; \
        for (uint i = 0; i < SIDE; i++) { \
            given[i] = vec4(source[element]); \
            element += component; \
        } \
        vec4 found[BLOCK] = transform(given); \
        for (uint i = 0; i < BLOCK; i++) \
            shares[i][row] = found[i]; \
    }

#ifdef LEADS
#define COLUMN(x) ((x) < push.lead_x ? (x) + push.target_stride - push.lead_x : (x) - push.lead_x)
#define LINE(y) ((y) < push.lead_y ? (y) + rows - push.lead_y : (y) - push.lead_y)
#else
#define COLUMN(x) (x)
#define LINE(y) (y)
#endif

void main()
{
#ifdef LEADS
    uint rows = push.target_plane / push.target_stride;
#endif
    uint x = FIRST_X, y = FIRST_Y, slice = gl_WorkGroupID.x;
    uint element = ELEMENT(source, slice, x / BLOCK, y / BLOCK);
    uint component = IN_SLICES * push.source_plane;
    vec4 shares[BLOCK][SIDE];
    ROWS
    for (uint i = 0; i < BLOCK; i++) {
        vec4 found[BLOCK] = transform(shares[i]);
        for (uint j = 0; j < BLOCK; j++)
            store(found[j], slice, COLUMN(x + i), LINE(y + j));
    }
}
