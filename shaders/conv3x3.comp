#version 450
// 3×3 convolution, stride 1, one zero of padding: a register tile of TILE_W × TILE_H
// pixels of one output quad an invocation, for GPUs. The grid covers the whole plane
// exactly, so that no invocation has to ask whether it has work.
#include "conv.glsl"

// Mesa does not unroll loops as large as one over taps: they are spelled out. Rows of
// the input are loaded when the first tap needs them, to stay within 64 registers.
#define ROW(r) \
    for (uint i = 0; i < TILE_W + 2; i++) \
        block[r][i] = source[corner + (r) * push.source_stride + i];

#define TAP(row, column) \
    { \
        uint tap = weight + 4 * (3 * row + column); \
        Quad w0 = weights[tap], w1 = weights[tap + 1]; \
        Quad w2 = weights[tap + 2], w3 = weights[tap + 3]; \
        PIXELS \
        { \
            Quad v = block[j + row][i + column]; \
            SUM[j][i] = SUM[j][i] + v.x * w0 + v.y * w1 + v.z * w2 + v.w * w3; \
        } \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x * TILE_W;
    uint y = gl_GlobalInvocationID.y * TILE_H;
    uint quad = gl_WorkGroupID.z;

    vec4 sum[TILE_H][TILE_W];
    PIXELS sum[j][i] = vec4(0.0);

    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    uint weight = quad * IN_QUADS * 36;
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad++) {
        Quad block[TILE_H + 2][TILE_W + 2];
#ifdef FP16
#define SUM part
        Quad part[TILE_H][TILE_W];
        PIXELS part[j][i] = Quad(0.0);
#else
#define SUM sum
#endif
        for (uint r = 0; r < TILE_H; r++)
            ROW(r)
        TAP(0, 0) TAP(0, 1) TAP(0, 2)
        ROW(TILE_H)
        TAP(1, 0) TAP(1, 1) TAP(1, 2)
        ROW(TILE_H + 1)
        TAP(2, 0) TAP(2, 1) TAP(2, 2)
#ifdef FP16
        PIXELS sum[j][i] += vec4(part[j][i]);
#endif
        corner += push.source_plane;
        weight += 36;
    }

    PIXELS store(sum[j][i], quad, x + i, y + j);
}
