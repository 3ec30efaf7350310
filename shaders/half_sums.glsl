// Sums of 3×3 products for a column of TILE_H pixels, eight or twelve, of one output slice,
// all in half precision: for layers of at most sixteen input channels, whose sums are
// short. Without sums in single precision twice as many pixels fit into the registers, and
// a slice of weights serves as many.
//
// Mesa's compiler pairs half-precision sums only where no loop carries them: input slices,
// taps and pixels are all spelled out. The order is that of columns.glsl.
#include "conv.glsl"
#include "taps.glsl"

#define PRODUCT(j, row, lane) sum[j] += above[j + row].lane * tap;
#define FIRST_PRODUCTS(row, lane) \
    PRODUCT(0, row, lane) PRODUCT(1, row, lane) PRODUCT(2, row, lane) \
    PRODUCT(3, row, lane) PRODUCT(4, row, lane) PRODUCT(5, row, lane) \
    PRODUCT(6, row, lane) PRODUCT(7, row, lane)
#define FIRST_ROWS \
    NEXT_ROW(0) NEXT_ROW(1) NEXT_ROW(2) NEXT_ROW(3) \
    NEXT_ROW(4) NEXT_ROW(5) NEXT_ROW(6) NEXT_ROW(7)
#if TILE_H == 12
#define PRODUCTS(row, lane) \
    FIRST_PRODUCTS(row, lane) \
    PRODUCT(8, row, lane) PRODUCT(9, row, lane) PRODUCT(10, row, lane) \
    PRODUCT(11, row, lane)
#define ROWS FIRST_ROWS NEXT_ROW(8) NEXT_ROW(9) NEXT_ROW(10) NEXT_ROW(11)
#else
#define PRODUCTS(row, lane) FIRST_PRODUCTS(row, lane)
#define ROWS FIRST_ROWS
#endif

#define CHANNEL(row, column, c, lane) \
    { \
        Pack4 tap = weights[weight + 4 * (3 * row + column) + c]; \
        PRODUCTS(row, lane) \
    }

#define COLUMN(column) \
    { \
        SEEK(corner + column) \
        Pack4 above[TILE_H + 2]; \
        ROWS \
        TAP(0, column) \
        NEXT_ROW(TILE_H) \
        TAP(1, column) \
        NEXT_ROW(TILE_H + 1) \
        TAP(2, column) \
    }

#define SLICE \
    COLUMN(0) COLUMN(1) COLUMN(2) \
    corner += push.source_plane; \
    weight += 36;

#define CLEAR(j) sum[j] = Pack4(0.0);

// `corner` is the element that the first pixel's first tap reads.
Pack4[TILE_H] half_sums(uint slice, uint corner)
{
    Pack4 sum[TILE_H];
    CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5) CLEAR(6) CLEAR(7)
#if TILE_H == 12
    CLEAR(8) CLEAR(9) CLEAR(10) CLEAR(11)
#endif
    uint weight = push.weights_base + slice * IN_SLICES * 36;
    SLICE
    if (IN_SLICES > 1) {
        SLICE
    }
    if (IN_SLICES > 2) {
        SLICE
    }
    if (IN_SLICES > 3) {
        SLICE
    }
    return sum;
}
