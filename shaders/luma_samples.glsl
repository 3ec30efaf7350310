// What the last layers that write samples of luma share. In half precision, since
// neighbours write halves of a word. LUMA is defined, and conv.glsl included before.

layout(constant_id = 1) const uint PIXEL = 1;       // see bytes.glsl
layout(constant_id = 2) const float STEPS = 255.0;  // of a sample, in one
layout(constant_id = 3) const bool SKIP = true;     // bilinear, of the picture
layout(constant_id = 4) const float LOW = 0.0;      // what a sample may be
layout(constant_id = 5) const float HIGH = 255.0;
#include "bytes.glsl"

// Where a row of the picture begins, edges replicated.
uint row_start(int row)
{
    uint inside = uint(clamp(row, 0, int(push.target_height) - 1));
    return push.other_base + inside * push.source_stride;
}

// The half of a word of the result where a sample lies, or which begins with it.
uint sample_place(uint x, uint row)
{
    return 2 * HEADER + row * push.target_stride + PIXEL_BYTES * x / 2;
}

// Nought times a number beyond all bounds is none. No compiler may know that it is 0.
float16_t nought()
{
    return float16_t(push.carries >> 1);
}

// As in pack.comp: word 1 says of a result that is no picture, word 0 carries the token.
void report(Pack4 overflow, bool first)
{
    uint exponents = packFloat2x16(overflow.xy) | packFloat2x16(overflow.zw);
    if ((exponents & 0x7C007C00) != 0) {
        f16vec2 token = unpackFloat2x16(given[0]);
        picture[2] = token.x;
        picture[3] = token.y;
    }
    if (push.carries != 0 && first) {
        f16vec2 token = unpackFloat2x16(~given[0]);
        picture[0] = token.x;
        picture[1] = token.y;
    }
}
