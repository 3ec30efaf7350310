#version 450
// A picture of RGB, SCALE times as large, by its luma, which is there, and by the colours
// of the small one: what those differ by from their luma is interpolated by Catmull-Rom's
// cubic, edges replicated. Positions are kept in integers, so that a tile samples with the
// weights of the whole picture. Four pixels of a row an invocation.
layout(local_size_x = 8, local_size_y = 8) in;

layout(binding = 0) readonly buffer Given { uint given[]; };
layout(binding = 1) readonly buffer Luma { uint luma[]; };
layout(binding = 2) writeonly buffer Picture { uint picture[]; };
layout(push_constant) uniform Push
{
    uint given_stride;  // pixels
    uint width;
    uint height;
    uint luma_row;  // words
    uint picture_row;
} push;

layout(constant_id = 2) const uint SCALE = 2;

#include "luma.glsl"
#define CUBIC_A -0.5  // Catmull-Rom's
#include "cubic.glsl"
#define PIXEL 3
#include "bytes.glsl"

// The pixel of the small picture at or before which pixel `place` lies lies so many steps
// after pixel -1: never negative. From one to the next there are 2 * SCALE.
uint steps(uint place)
{
    return 2 * place + SCALE + 1;
}

// How many columns four pixels lie between is known beforehand. Spelled out, since Mesa's
// compiler does not unroll as many.
#define COLUMN(i) \
    if (i < 4 + (2 + SCALE) / SCALE) { \
        uint place = uint(clamp(left + i, 0, int(push.width) - 1)); \
        column[i] = weight.x * given_pixel(rows[0] + place).rgb \
            + weight.y * given_pixel(rows[1] + place).rgb \
            + weight.z * given_pixel(rows[2] + place).rgb \
            + weight.w * given_pixel(rows[3] + place).rgb; \
    }

void main()
{
    uint x = 4 * gl_GlobalInvocationID.x, y = gl_GlobalInvocationID.y;
    if (x >= SCALE * push.width || y >= SCALE * push.height)
        return;
    uint down = steps(y), first = steps(x);
    vec4 weight = cubic_weights(float(down % (2 * SCALE)) / float(2 * SCALE));
    int top = int(down / (2 * SCALE)) - 2, left = int(first / (2 * SCALE)) - 2;
    uint rows[4];
    for (int j = 0; j < 4; j++) {
        uint row = uint(clamp(top + j, 0, int(push.height) - 1));
        rows[j] = row * push.given_stride;
    }
    vec3 column[7];
    COLUMN(0) COLUMN(1) COLUMN(2) COLUMN(3) COLUMN(4) COLUMN(5) COLUMN(6)
    uint place = HEADER + y * push.luma_row + x / 2;
    uint words[2] = uint[2](luma[place], luma[place + 1]);
    // Where the scale divides four, so is where each lies.
    uint rest = (4 % SCALE == 0 ? steps(0) : first) % (2 * SCALE);
    uvec3 bytes[4];
    for (uint i = 0; i < 4; i++) {
        uint after = rest + 2 * i, c = after / (2 * SCALE);
        vec4 across = cubic_weights(float(after % (2 * SCALE)) / float(2 * SCALE));
        vec3 smooth_rgb = across.x * column[c] + across.y * column[c + 1]
            + across.z * column[c + 2] + across.w * column[c + 3];
        float steps_of_luma = float(words[i / 2] >> (16 * (i % 2)) & 0xFFFF);
        float value = (steps_of_luma / float(STEPS) - BLACK) / GAIN;
        vec3 rgb = smooth_rgb + (value - luma_of(smooth_rgb));
        bytes[i] = uvec3(clamp(rgb, 0.0, 255.0) + 0.5);
    }
    uvec3 b0 = bytes[0], b1 = bytes[1], b2 = bytes[2], b3 = bytes[3];
    uint word = HEADER + y * push.picture_row + 3 * gl_GlobalInvocationID.x;
    picture[word] = b0.r | b0.g << 8 | b0.b << 16 | b1.r << 24;
    picture[word + 1] = b1.g | b1.b << 8 | b2.r << 16 | b2.g << 24;
    picture[word + 2] = b2.b | b3.r << 8 | b3.g << 16 | b3.b << 24;
    // The network's proof that it ran, and that its result is one.
    if (x == 0 && y == 0) {
        picture[0] = luma[0];
        picture[1] = luma[1];
    }
}
