// Pictures in host memory: words of four bytes. Word 0 is a token that the device has to
// carry from the picture that comes in, `given` of the including file, to the one that
// goes out; there, word 1 is the token as well where the picture is not finite. From word
// HEADER on a pixel's bytes follow each other, and rows begin at whole words. What comes in
// is laid out as one plane of a value is.
//
// PIXEL, of the including file, says what a pixel is: its lowest eight bits how many bytes,
// which are one sample of 8 bits, one of a 16-bit word, or three of 8; the bits above them
// at which bit of its word the sample begins.

#define PIXEL_BYTES (PIXEL & 255)
#define LOWEST_BIT (PIXEL >> 8)
#define SAMPLES (PIXEL_BYTES == 3 ? 3 : 1)  // of a pixel
#define HEADER 16  // words: 64 bytes, so that rows begin on a cache line

// The bytes of the pixel that begins at bit `shift` of `word`, counted from the header on;
// the next pixel's may stand above them.
uint pixel_bytes(uint word, uint shift)
{
    uint bytes = given[HEADER + word] >> shift;
    // In two steps, since a shift by 32 is undefined.
    if (SAMPLES > 1)
        bytes |= given[HEADER + word + 1] << 1 << (31 - shift);
    return bytes;
}

// A pixel's samples as numbers.
vec4 unpack_bytes(uint bytes)
{
    if (PIXEL_BYTES == 2)
        return vec4(float((bytes & 0xFFFF) >> LOWEST_BIT), 0.0, 0.0, 0.0);
    if (PIXEL_BYTES == 1)
        return vec4(float(bytes & 255), 0.0, 0.0, 0.0);
    return vec4(uvec4(bytes & 255, bytes >> 8 & 255, bytes >> 16 & 255, 0));
}

vec4 given_pixel(uint element)
{
    uint start = PIXEL_BYTES * element;
    return unpack_bytes(pixel_bytes(start / 4, start % 4 * 8));
}
