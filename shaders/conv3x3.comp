#version 450
// 3×3 convolution, stride 1, one zero of padding: a register tile of TILE_W × TILE_H
// pixels × QUADS output quads an invocation. The grid covers the whole plane exactly, so
// that no invocation has to ask whether it has work.
#include "conv.glsl"

// Mesa's compiler does not unroll loops of this size, and arrays that a loop variable
// indexes would go to memory: the nine taps are spelled out.
#define TAP(row, column) \
    { \
        Quad w0 = weights[tap], w1 = weights[tap + 1]; \
        Quad w2 = weights[tap + 2], w3 = weights[tap + 3]; \
        tap += 4; \
        for (uint j = 0; j < TILE_H; j++) \
            for (uint i = 0; i < TILE_W; i++) { \
                Quad v = block[j + row][i + column]; \
                part[j][i] += v.x * w0 + v.y * w1 + v.z * w2 + v.w * w3; \
            } \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x * TILE_W;
    uint y = gl_GlobalInvocationID.y * TILE_H;
    uint quad = gl_WorkGroupID.z * QUADS;

    vec4 sum[QUADS][TILE_H][TILE_W];
    for (uint q = 0; q < QUADS; q++)
        for (uint j = 0; j < TILE_H; j++)
            for (uint i = 0; i < TILE_W; i++)
                sum[q][j][i] = vec4(0.0);

    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    uint weight = quad * IN_QUADS * 36;
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad++) {
        Quad block[TILE_H + 2][TILE_W + 2];
        for (uint j = 0; j < TILE_H + 2; j++)
            for (uint i = 0; i < TILE_W + 2; i++)
                block[j][i] = source[corner + j * push.source_stride + i];
        for (uint q = 0; q < QUADS; q++) {
            uint tap = weight + q * IN_QUADS * 36;
            Quad part[TILE_H][TILE_W];
            for (uint j = 0; j < TILE_H; j++)
                for (uint i = 0; i < TILE_W; i++)
                    part[j][i] = Quad(0.0);
            TAP(0, 0) TAP(0, 1) TAP(0, 2)
            TAP(1, 0) TAP(1, 1) TAP(1, 2)
            TAP(2, 0) TAP(2, 1) TAP(2, 2)
            for (uint j = 0; j < TILE_H; j++)
                for (uint i = 0; i < TILE_W; i++)
                    sum[q][j][i] += vec4(part[j][i]);
        }
        corner += push.source_plane;
        weight += 36;
    }

    for (uint q = 0; q < QUADS; q++)
        for (uint j = 0; j < TILE_H; j++)
            for (uint i = 0; i < TILE_W; i++)
                store(sum[q][j][i], quad + q, x + i, y + j);
}
