// A tap of a column of pixels, for shaders that spell their taps out: products of the input's
// channels, and reading a column of the input row by row. The including file has CHANNEL,
// the products of one channel, and declares `above`, the rows that are read.

#define TAP(row, column) \
    CHANNEL(row, column, 0, x) \
    if (LANES > 1) { \
        CHANNEL(row, column, 1, y) \
        CHANNEL(row, column, 2, z) \
    } \
    if (LANES > 3) \
        CHANNEL(row, column, 3, w)

#ifdef BYTES
// Rows begin at whole words: pixels of a column have the same shift.
#define SEEK(element) \
    uint word = PIXEL_BYTES * (element) / 4, shift = PIXEL_BYTES * (element) % 4 * 8;
#define NEXT_ROW(r) \
    above[r] = Pack4(unpack_bytes(pixel_bytes(word, shift))); \
    word += PIXEL_BYTES * push.source_stride / 4;
#else
#define SEEK(start) uint element = start;
#define NEXT_ROW(r) \
    above[r] = LOAD(element); \
    element += push.source_stride;
#endif
