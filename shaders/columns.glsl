// Sums of a KERNEL × KERNEL window, 2×2 or 3×3, for a column of TILE_H pixels of one output
// slice. A column, since neighbouring invocations then read neighbouring elements.
//
// Mesa's compiler does not unroll loops as large as one over taps, nor does it reorder
// much: taps are spelled out, in an order in which a slice of the input is loaded when the
// first tap needs it and dead after the last one, so that all stays within 64 registers.
#include "conv.glsl"
#include "taps.glsl"

#define CHANNEL(row, column, c, lane) \
    { \
        Pack4 tap = weights[weight + 4 * (KERNEL * row + column) + c]; \
        for (uint j = 0; j < TILE_H; j++) \
            SUM[j] += above[j + row].lane * tap; \
    }

#define COLUMN(column) \
    { \
        SEEK(corner + column) \
        Pack4 above[TILE_H + KERNEL - 1]; \
        for (uint j = 0; j < TILE_H; j++) { \
            NEXT_ROW(j) \
        } \
        TAP(0, column) \
        NEXT_ROW(TILE_H) \
        TAP(1, column) \
        if (KERNEL > 2) { \
            NEXT_ROW(TILE_H + KERNEL - 2) \
            TAP(2, column) \
        } \
    }

// `corner` is the element that the first pixel's first tap reads.
vec4[TILE_H] column_sums(uint slice, uint corner)
{
    vec4 sum[TILE_H];
    for (uint j = 0; j < TILE_H; j++)
        sum[j] = vec4(0.0);

    EACH_INPUT_SLICE {
        // From scratch each time: a running index would need one more register.
        uint weight = push.weights_base
            + (slice * IN_SLICES + input_slice) * 4 * KERNEL * KERNEL;
#ifdef FP16
#define SUM part
        Pack4 part[TILE_H];
        for (uint j = 0; j < TILE_H; j++)
            part[j] = Pack4(0.0);
#else
#define SUM sum
#endif
        COLUMN(0)
        COLUMN(1)
        if (KERNEL > 2)
            COLUMN(2)
#ifdef FP16
        for (uint j = 0; j < TILE_H; j++)
            sum[j] += vec4(part[j]);
#endif
        corner += push.source_plane;
    }
    return sum;
}
