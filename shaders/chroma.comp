#version 450
// Chroma of a frame, SCALE times as large: Catmull-Rom's cubic, edges replicated. A sample
// lies SUB_X columns and SUB_Y rows of luma after the one before, and the first one
// OFFSET / 2 after the first of luma, or RESULT_OFFSET / 2 in the result, whose luma begins
// where the frame's does, at the edge of the first pixel. Positions are kept in integers, so
// that a tile samples with the weights of the whole frame.
//
// One word of a row of the result an invocation: one to four samples, or pairs of U and V.
// Three words where the scale is three, so that the samples' places between the frame's are
// the same in all invocations.
layout(local_size_x = 8, local_size_y = 8) in;

layout(binding = 0) readonly buffer Given { uint given[]; };
layout(binding = 1) writeonly buffer Picture { uint picture[]; };
layout(push_constant) uniform Push
{
    uint given_first;  // words: where the first plane begins, and a row
    uint given_row;
    uint width;  // of the frame's chroma
    uint height;
    uint picture_first;
    uint picture_row;
} push;

layout(constant_id = 0) const uint COMPONENTS = 1;    // 2: U and V in turn
layout(constant_id = 1) const uint SAMPLE_BYTES = 1;
layout(constant_id = 2) const uint LOWEST_BIT = 0;    // of a 16-bit word, that is a sample's
layout(constant_id = 3) const uint SCALE = 2;
layout(constant_id = 4) const uint SUB_X = 2;
layout(constant_id = 5) const uint SUB_Y = 2;
layout(constant_id = 6) const uint OFFSET_X = 0;
layout(constant_id = 7) const uint OFFSET_Y = 0;
layout(constant_id = 8) const uint RESULT_OFFSET_X = 0;
layout(constant_id = 9) const uint RESULT_OFFSET_Y = 0;
layout(constant_id = 10) const float LOW = 0.0;       // what a sample may be
layout(constant_id = 11) const float HIGH = 255.0;

#define CUBIC_A -0.5  // Catmull-Rom's
#include "cubic.glsl"

const uint MASK = (SAMPLE_BYTES == 1 ? 255 : 0xFFFF) >> LOWEST_BIT;
const uint WORDS = SCALE == 3 ? 3 : 1;
const uint WORD_GROUP = 4 / (COMPONENTS * SAMPLE_BYTES);  // columns of a word
const uint GROUP = WORDS * WORD_GROUP;
// Between columns of the frame's chroma there are so many steps of a position.
const uint STEPS_X = 2 * SUB_X * SCALE;
const uint STEPS_Y = 2 * SUB_Y * SCALE;

// The frame's chroma sample at or before which sample `place` of the result lies lies so
// many steps after sample -1: never negative.
uint steps(uint place, uint sub, uint offset, uint result_offset)
{
    return 2 * sub * (place + SCALE) + 1 + result_offset - SCALE * (1 + offset);
}

vec2 fetch(uint row, int column)
{
    uint inside = uint(clamp(column, 0, int(push.width) - 1));
    uint start = inside * COMPONENTS * SAMPLE_BYTES;
    uint bits = given[row + start / 4] >> (start % 4 * 8 + LOWEST_BIT);
    uint other = COMPONENTS == 2 ? bits >> (8 * SAMPLE_BYTES) : 0;
    return vec2(uvec2(bits, other) & MASK);
}

// Spelled out, since Mesa's compiler does not unroll as many, and what lies where is then
// known.
#define SAMPLE(i) \
    if (i < GROUP) { \
        uint after = rest + 2 * SUB_X * i, c = after / STEPS_X; \
        vec4 across = cubic_weights(float(after % STEPS_X) / float(STEPS_X)); \
        vec2 value = across.x * column[c] + across.y * column[c + 1] \
            + across.z * column[c + 2] + across.w * column[c + 3]; \
        uvec2 bits = uvec2(clamp(value, LOW, HIGH) + 0.5) << LOWEST_BIT; \
        uint shift = 8 * SAMPLE_BYTES * COMPONENTS * (i % WORD_GROUP); \
        words[i / WORD_GROUP] |= bits.x << shift; \
        if (COMPONENTS == 2) \
            words[i / WORD_GROUP] |= bits.y << (shift + 8 * SAMPLE_BYTES); \
    }

void main()
{
    uint x = gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    uint plane = gl_GlobalInvocationID.z;
    if (WORDS * x >= push.picture_row || y >= SCALE * push.height)
        return;
    uint down = steps(y, SUB_Y, OFFSET_Y, RESULT_OFFSET_Y);
    vec4 weight = cubic_weights(float(down % STEPS_Y) / float(STEPS_Y));
    int top = int(down / STEPS_Y) - 2;
    uint rows[4];
    for (int j = 0; j < 4; j++) {
        uint row = uint(clamp(top + j, 0, int(push.height) - 1));
        rows[j] = push.given_first + (plane * push.height + row) * push.given_row;
    }

    uint first = steps(GROUP * x, SUB_X, OFFSET_X, RESULT_OFFSET_X);
    int left = int(first / STEPS_X) - 2;
    vec2 column[8];
    // How many columns the samples lie between is known beforehand.
    for (int i = 0; i < 8; i++) {
        if (i < 4 + (GROUP + SCALE - 2) / SCALE) {
            column[i] = weight.x * fetch(rows[0], left + i)
                + weight.y * fetch(rows[1], left + i)
                + weight.z * fetch(rows[2], left + i)
                + weight.w * fetch(rows[3], left + i);
        }
    }
    // Where the scale divides the group, so is where each lies.
    uint origin = steps(0, SUB_X, OFFSET_X, RESULT_OFFSET_X);
    uint rest = (GROUP % SCALE == 0 ? origin : first) % STEPS_X;
    uint words[3] = uint[3](0, 0, 0);
    SAMPLE(0) SAMPLE(1) SAMPLE(2) SAMPLE(3) SAMPLE(4) SAMPLE(5)
    SAMPLE(6) SAMPLE(7) SAMPLE(8) SAMPLE(9) SAMPLE(10) SAMPLE(11)
    uint place = push.picture_first
        + (plane * SCALE * push.height + y) * push.picture_row + WORDS * x;
    picture[place] = words[0];
    if (WORDS == 3) {
        if (WORDS * x + 1 < push.picture_row)
            picture[place + 1] = words[1];
        if (WORDS * x + 2 < push.picture_row)
            picture[place + 2] = words[2];
    }
}
