// Pictures in host memory: words of four bytes. Word 0 is a token that the device has to
// carry from the picture that comes in, `given` of the including file, to the one that
// goes out. From word HEADER on a pixel's CHANNELS bytes, one or three, follow each other,
// and rows begin at whole words. What comes in is laid out as one plane of a value is.

#define HEADER 16  // words: 64 bytes, so that rows begin on a cache line

// The bytes of the pixel that begins at bit `shift` of `word`, counted from the header on;
// the next pixel's may stand above them.
uint pixel_bytes(uint word, uint shift)
{
    uint bytes = given[HEADER + word] >> shift;
    // In two steps, since a shift by 32 is undefined.
    if (CHANNELS > 1)
        bytes |= given[HEADER + word + 1] << 1 << (31 - shift);
    return bytes;
}

// A pixel's bytes as numbers, 0 to 255.
vec4 unpack_bytes(uint bytes)
{
    if (CHANNELS == 1)
        return vec4(float(bytes & 255), 0.0, 0.0, 0.0);
    return vec4(uvec4(bytes & 255, bytes >> 8 & 255, bytes >> 16 & 255, 0));
}

vec4 given_pixel(uint element)
{
    uint start = CHANNELS * element;
    return unpack_bytes(pixel_bytes(start / 4, start % 4 * 8));
}
