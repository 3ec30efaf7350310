// Winograd's F(4×4, 3×3) after Lavin and Gray, arXiv:1509.09308: what its shaders share.
// They are not in use; benchmarks/winograd.py says what they would cost.
//
// Values are transformed in blocks of 6 × 6 pixels, four apart, into 36 components. A
// component is a plane of one element a block. Arithmetic is done on items, parts of a
// slice, as large as leave a whole block within 64 registers.
#include "upfrost.glsl"

#ifdef FP16
#define Item f16vec2
#define ITEMS 2  // of a slice
#else
#define Item float
#define ITEMS 4
#endif

layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint block_stride;  // of a row of blocks
    uint block_plane;   // of a component of a slice
    uint slices;
} push;
