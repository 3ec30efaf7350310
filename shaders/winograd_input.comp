#version 450
// Winograd's F(m×m, 3×3), before the products: each block of (m + 2)² pixels, m apart, as
// as many components (Lavin and Gray 2016, arXiv:1509.09308); m is TILE_W, 2 or 4. A
// component of a slice is a plane of one element a block; components follow each other.
// One item of one block an invocation: for m = 2 as much of a slice as leaves the block
// within 64 registers. Neighbours share a slice.
#include "upfrost.glsl"

#ifdef FP16
#define Item f16vec4
#define ITEMS 1  // of a slice
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
layout(constant_id = 0) const uint SOURCE_SLICES = 1;

#define BLOCK TILE_W
#define SIDE (BLOCK + 2)

#if BLOCK == 2
#define COLUMNS COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3)
#define ROWS ROW(0) ROW(1) ROW(2) ROW(3)
Item[SIDE] transform(Item d[SIDE])
{
    return Item[SIDE](d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]);
}
#else
#define COLUMNS COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3) COLUMN(4) COLUMN(5)
#define ROWS ROW(0) ROW(1) ROW(2) ROW(3) ROW(4) ROW(5)
Item[SIDE] transform(Item d[SIDE])
{
    const Scalar two = Scalar(2.0), four = Scalar(4.0), five = Scalar(5.0);
    Item even = d[4] - four * d[2], odd = d[3] - four * d[1];
    Item less = d[4] - d[2], twice = two * (d[3] - d[1]);
    return Item[SIDE](
        four * d[0] - five * d[2] + d[4],
        even + odd, even - odd, less + twice, less - twice,
        four * d[1] - five * d[3] + d[5]
    );
}
#endif

#define COLUMN(column) \
    { \
        uint element = corner + column * ITEMS; \
        Item given[SIDE]; \
        for (uint i = 0; i < SIDE; i++) { \
            given[i] = source[element]; \
            element += push.source_stride * ITEMS; \
        } \
        given = transform(given); \
        for (uint i = 0; i < SIDE; i++) \
            block[i][column] = given[i]; \
    }

#define ROW(row) \
    { \
        Item found[SIDE] = transform(block[row]); \
        for (uint i = 0; i < SIDE; i++) { \
            target[place] = found[i]; \
            place += component; \
        } \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x / ITEMS, item = gl_GlobalInvocationID.x % ITEMS;
    uint y = gl_GlobalInvocationID.y, slice = gl_WorkGroupID.z;
    uint corner = ELEMENT(source, slice, BLOCK * x, BLOCK * y) * ITEMS + item;
    uint place = ELEMENT(target, slice, x, y) * ITEMS + item;
    uint component = SOURCE_SLICES * push.target_plane * ITEMS;
    Item block[SIDE][SIDE];
    COLUMNS
    ROWS
}
