#version 450
// Transposed 4×4 convolution, stride 2: of each 2×2 block of the output every pixel, its
// phase, is a 2×2 convolution of the input with taps of its own. A column of TILE_H pixels
// of one phase of one output slice an invocation, written where they belong. The grid
// covers the whole output plane exactly; the input's base is that of the first tap.
#define KERNEL 2
#include "columns.glsl"

void main()
{
    uint x = FIRST_X, y = FIRST_Y, slice = gl_WorkGroupID.x;
    uint row = slice % 4 / 2, column = slice % 2;
    // The output's margin may be larger than the input's: what lies there becomes zeros.
    uint source_x = min(x, push.source_stride - 1);
    uint source_y = min(y, push.source_height - TILE_H);
    uint corner = ELEMENT(source, 0, source_x + column, source_y + row);
    vec4 sum[TILE_H] = column_sums(slice, corner);
    for (uint j = 0; j < TILE_H; j++)
        store(sum[j], slice / 4, 2 * x + column, 2 * (y + j) + row);
}
