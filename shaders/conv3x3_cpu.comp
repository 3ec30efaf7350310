#version 450
// The convolution of conv3x3.comp for CPU devices: TILE_W × TILE_H pixels × QUADS output
// quads an invocation, products added up in the same order. Lavapipe has no lack of
// registers, but compiles slowly: the taps' columns stay a loop, which costs a few loads.
#include "conv.glsl"

#define SUMS for (uint q = 0; q < QUADS; q++) PIXELS

#ifdef FP16
#define SUM part
#else
#define SUM sum
#endif

// Output quads are spelled out too: a loop over them would index the sums.
#define TAP_OF_QUAD(q, row) \
    { \
        uint tap = weight + q * IN_QUADS * 36 + 12 * row; \
        Quad w0 = weights[tap], w1 = weights[tap + 1]; \
        Quad w2 = weights[tap + 2], w3 = weights[tap + 3]; \
        PIXELS \
        { \
            Quad v = block[j + row][i]; \
            SUM[q][j][i] \
                = SUM[q][j][i] + v.x * w0 + v.y * w1 + v.z * w2 + v.w * w3; \
        } \
    }
#if QUADS == 1
#define TAP(row) TAP_OF_QUAD(0, row)
#elif QUADS == 2
#define TAP(row) TAP_OF_QUAD(0, row) TAP_OF_QUAD(1, row)
#endif

void main()
{
    uint x = FIRST_X;
    uint y = FIRST_Y;
    uint quad = FIRST_QUAD;

    vec4 sum[QUADS][TILE_H][TILE_W];
    SUMS sum[q][j][i] = vec4(0.0);

    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    uint weight = quad * IN_QUADS * 36;
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad++) {
#ifdef FP16
        Quad part[QUADS][TILE_H][TILE_W];
        SUMS part[q][j][i] = Quad(0.0);
#endif
        for (uint column = 0; column < 3; column++) {
            Quad block[TILE_H + 2][TILE_W];
            for (uint j = 0; j < TILE_H + 2; j++)
                for (uint i = 0; i < TILE_W; i++)
                    block[j][i] = source[corner + j * push.source_stride + i + column];
            TAP(0) TAP(1) TAP(2)
            weight += 4;
        }
        weight += 24;
#ifdef FP16
        SUMS sum[q][j][i] += vec4(part[q][j][i]);
#endif
        corner += push.source_plane;
    }

    SUMS store(sum[q][j][i], quad + q, x + i, y + j);
}
