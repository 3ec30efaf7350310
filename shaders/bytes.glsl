// Pictures in host memory: words of four bytes. Word 0 is a token that the device has to
// carry from the picture that comes in to the picture that goes out; the rows follow at
// word HEADER, each padded to a multiple of four pixels (CHANNELS words).

const uint HEADER = 16;  // words: 64 bytes, so that rows begin on a cache line
layout(constant_id = 0) const uint CHANNELS = 3;
layout(constant_id = 1) const float VALUE_RANGE = 1.0;
