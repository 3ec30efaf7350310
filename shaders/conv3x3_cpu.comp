#version 450
// The convolution of conv3x3.comp for CPU devices: TILE_W × TILE_H pixels of one output
// slice an invocation, products added up in the same order. On lavapipe loads are what
// costs (each lane's in a loop of its own), so that a pixel's neighbours share theirs;
// it has no lack of registers, but takes seconds to compile more output slices at once.
#include "conv.glsl"

#define TAP(row) \
    { \
        uint tap = weight + 12 * row; \
        Pack4 w0 = weights[tap], w1 = weights[tap + 1]; \
        Pack4 w2 = weights[tap + 2], w3 = weights[tap + 3]; \
        PIXELS \
        { \
            Pack4 v = block[j + row][i]; \
            SUM[j][i] = SUM[j][i] + v.x * w0 + v.y * w1 + v.z * w2 + v.w * w3; \
        } \
    }

void main()
{
    uint x = FIRST_X;
    uint y = FIRST_Y;
    uint slice = gl_WorkGroupID.x;

    vec4 sum[TILE_H][TILE_W];
    PIXELS sum[j][i] = vec4(0.0);

    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    uint weight = push.weights_base + slice * IN_SLICES * 36;
    EACH_INPUT_SLICE {
#ifdef FP16
#define SUM part
        Pack4 part[TILE_H][TILE_W];
        PIXELS part[j][i] = Pack4(0.0);
#else
#define SUM sum
#endif
        for (uint column = 0; column < 3; column++) {
            Pack4 block[TILE_H + 2][TILE_W];
            for (uint j = 0; j < TILE_H + 2; j++)
                for (uint i = 0; i < TILE_W; i++)
                    block[j][i] = LOAD(corner + j * push.source_stride + i);
            TAP(0) TAP(1) TAP(2)
            corner++;
            weight += 4;
        }
#ifdef FP16
        PIXELS sum[j][i] += vec4(part[j][i]);
#endif
        corner += push.source_plane - 3;
        weight += 24;
    }

    PIXELS store(sum[j][i], slice, x + i, y + j);
}
