#version 450
// Convolution of any kernel size, stride, dilation and padding: TILE_W × TILE_H pixels
// of one output slice an invocation. Groups are a matter of weight packing: an output
// slice reads IN_SLICES input slices from the first one that its channels need on, and
// weights of channels of other groups are zero. Half-precision sums run over at most seven
// taps of one input slice, since a large kernel's whole sum would lose too much.
#include "conv.glsl"

layout(constant_id = 5) const uint ROWS = 1;
layout(constant_id = 6) const uint COLUMNS = 1;
layout(constant_id = 7) const uint STRIDE_Y = 1;
layout(constant_id = 8) const uint STRIDE_X = 1;
layout(constant_id = 9) const uint DILATION_Y = 1;
layout(constant_id = 10) const uint DILATION_X = 1;
layout(constant_id = 11) const uint PADDING_TOP = 0;
layout(constant_id = 12) const uint PADDING_LEFT = 0;

// Products of one tap.
#define TAP \
    { \
        Pack4 w0 = weights[weight], w1 = weights[weight + 1]; \
        Pack4 w2 = weights[weight + 2], w3 = weights[weight + 3]; \
        PIXELS \
        { \
            uint source_x = (x + i) * STRIDE_X + column * DILATION_X; \
            source_x = min(source_x, push.source_stride + PADDING_LEFT - 1); \
            Pack4 v = LOAD(line[j] + source_x); \
            SUM[j][i] = SUM[j][i] + v.x * w0 + v.y * w1 + v.z * w2 + v.w * w3; \
        } \
        weight += 4; \
        column++; \
    }

void main()
{
    uint x = FIRST_X;
    uint y = FIRST_Y;
    uint slice = gl_WorkGroupID.x;
    uint first_slice = uint(parameters[push.parameters_base + 3 * slice + 2].x);

    // Invocations of the margin may begin below the input: they read its last row. Its
    // height is that of the plane here, from the first row of this call on.
    uint last_row = push.source_height - 1;
    uint top = push.source_base + first_slice * push.source_plane - PADDING_LEFT;
    uint weight = push.weights_base + slice * IN_SLICES * ROWS * COLUMNS * 4;

    // A number that Mesa does not know: it would unroll the taps until they spill.
    uint rows = ROWS + (push.source_stride >> 31);
    // Taps of a row that are spelled out: those that a loop turns over would cost twice
    // as much in half precision, whose sums Mesa does not pair across turns.
    const uint block = COLUMNS % 7 == 0 ? 7
        : COLUMNS % 5 == 0 ? 5 : COLUMNS % 3 == 0 ? 3 : COLUMNS % 2 == 0 ? 2 : 1;

    vec4 sum[TILE_H][TILE_W];
    PIXELS sum[j][i] = vec4(0.0);

    EACH_INPUT_SLICE {
        for (uint row = 0; row < rows; row++) {
            uint line[TILE_H];
            for (uint j = 0; j < TILE_H; j++) {
                // Rows above the picture count down from zero and wrap, which min()
                // would turn into the last row: hence the signed minimum.
                int source_y = min(
                    int((y + j) * STRIDE_Y + row * DILATION_Y) - int(PADDING_TOP),
                    int(last_row));
                line[j] = top + uint(source_y * int(push.source_stride));
            }
            for (uint column = 0; column < COLUMNS;) {
#ifdef FP16
#define SUM part
                Pack4 part[TILE_H][TILE_W];
                PIXELS part[j][i] = Pack4(0.0);
#else
#define SUM sum
#endif
                TAP
                if (block > 1) TAP
                if (block > 2) TAP
                if (block > 3) { TAP TAP }
                if (block > 5) { TAP TAP }
#ifdef FP16
                PIXELS sum[j][i] += vec4(part[j][i]);
#endif
            }
        }
        top += push.source_plane;
    }

    PIXELS store(sum[j][i], slice, x + i, y + j);
}
