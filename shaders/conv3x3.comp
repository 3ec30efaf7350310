#version 450
// 3×3 convolution, stride 1, one zero of padding, for GPUs: a column of TILE_H pixels of
// one output slice an invocation. The grid covers the whole plane exactly, so that no
// invocation has to ask whether it has work.
#define KERNEL 3
#include "columns.glsl"

void main()
{
    uint x = FIRST_X, y = FIRST_Y, slice = gl_WorkGroupID.x;
    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    vec4 sum[TILE_H] = column_sums(slice, corner);
    for (uint j = 0; j < TILE_H; j++)
        store(sum[j], slice, x, y + j);
}
