#version 450
// Winograd's F(2×2, 3×3), after the products: 16 components of a block to its 2×2 pixels,
// and what follows a convolution. The source are the components' planes, as
// winograd_input.comp writes its own. One block of one output quad an invocation.
#include "conv.glsl"

// A row of components to the two pixels' shares of it.
#define ROW(row) \
    vec4 row[2]; \
    { \
        vec4 m[4]; \
        for (uint i = 0; i < 4; i++) { \
            m[i] = vec4(source[element]); \
            element += component; \
        } \
        row[0] = m[0] + m[1] + m[2]; \
        row[1] = m[1] - m[2] - m[3]; \
    }

void main()
{
    uint x = FIRST_X, y = FIRST_Y, quad = gl_WorkGroupID.x;
    uint element = ELEMENT(source, quad, x / 2, y / 2);
    uint component = IN_QUADS * push.source_plane;
    ROW(a) ROW(b) ROW(c) ROW(d)
    for (uint i = 0; i < 2; i++) {
        store(a[i] + b[i] + c[i], quad, x + i, y);
        store(b[i] - c[i] - d[i], quad, x + i, y + 1);
    }
}
