#version 450
// 1×1 convolution: TILE_W × TILE_H pixels of one output slice an invocation. The grid
// covers the whole plane exactly. Half-precision sums run over up to four input slices,
// since one of four products would cost as much to add up as to compute.
#include "conv.glsl"

// Products of one input slice. Spelled out as often as needed, since Mesa does not unroll
// a loop of this size.
#define STEP \
    { \
        Pack4 w0 = weights[weight], w1 = weights[weight + 1]; \
        Pack4 w2 = weights[weight + 2], w3 = weights[weight + 3]; \
        PIXELS \
        { \
            Pack4 v = LOAD(corner + j * push.source_stride + i); \
            SUM[j][i] = SUM[j][i] + v.x * w0 + v.y * w1 + v.z * w2 + v.w * w3; \
        } \
        weight += 4; \
        corner += push.source_plane; \
    }

void main()
{
    uint x = FIRST_X;
    uint y = FIRST_Y;
    uint slice = gl_WorkGroupID.x;

    vec4 sum[TILE_H][TILE_W];
    PIXELS sum[j][i] = vec4(0.0);

    const uint block = IN_SLICES % 4 == 0 ? 4 : IN_SLICES % 2 == 0 ? 2 : 1;
    uint corner = ELEMENT(source, 0, x, y);
    uint weight = push.weights_base + slice * IN_SLICES * 4;
    for (uint input_slice = 0; input_slice < IN_SLICES; input_slice += block) {
#ifdef FP16
#define SUM part
        Pack4 part[TILE_H][TILE_W];
        PIXELS part[j][i] = Pack4(0.0);
#else
#define SUM sum
#endif
        STEP
        if (block > 1) {
            STEP
        }
        if (block > 2) {
            STEP
            STEP
        }
#ifdef FP16
        PIXELS sum[j][i] += vec4(part[j][i]);
#endif
    }

    PIXELS store(sum[j][i], slice, x + i, y + j);
}
