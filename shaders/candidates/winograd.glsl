// Winograd's F(M×M, 3×3) after Lavin and Gray, arXiv:1509.09308: what the shaders share.
//
// Values are transformed in tiles of N × N pixels, M apart, into N · N components. A
// component is a plane of one element a tile. Arithmetic is done on parts of a quad, as
// large as leave a whole tile within 64 registers.
#include "upfrost.glsl"

#define N (M + 2)
#if M == 4 && !defined FP16
#define Item float
#define ITEMS 4  // of a quad
#elif M == 4
#define Item f16vec2
#define ITEMS 2
#elif !defined FP16
#define Item vec2
#define ITEMS 2
#else
#define Item f16vec4
#define ITEMS 1
#endif

layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint tile_stride;  // of a row of tiles
    uint tile_plane;   // of a component of a quad
    uint quads;
} push;
