// Interpolation by the ratio NUMERATOR / DENOMINATOR, edges replicated, as PyTorch's
// interpolate (align_corners=False) does it. Positions are kept in integers, so that
// a tile samples with the same weights as the whole picture. Where the axes differ,
// RATIO_X and RATIO_Y have numerator and denominator of each.
//
// The including file provides vec4 fetch(uint slice, uint x, uint y) and the extent of
// what it reads, FETCH_WIDTH and FETCH_HEIGHT.

const uint NEAREST = 1;
const uint BILINEAR = 2;
const uint BICUBIC = 3;

#ifndef RATIO_X
#define RATIO_X uvec2(NUMERATOR, DENOMINATOR)
#define RATIO_Y RATIO_X
#define WHOLE_LINES
#endif

// Twice the numerator's units: the place in the input that output pixel `position`
// samples, shifted by one pixel so that it is not negative.
uint shifted_position(uint position, uvec2 ratio)
{
    return (2 * position + 1) * ratio.y + ratio.x;
}

uint clamp_index(int index, uint extent)
{
    return uint(clamp(index, 0, int(extent) - 1));
}

#define CUBIC_A -0.75  // as PyTorch has it
#include "cubic.glsl"

vec4 resample(uint mode, uint slice, uint x, uint y)
{
    uvec2 ratio_x = RATIO_X, ratio_y = RATIO_Y;
    if (mode == NEAREST)
        return fetch(slice, min(x * ratio_x.y / ratio_x.x, FETCH_WIDTH - 1),
                     min(y * ratio_y.y / ratio_y.x, FETCH_HEIGHT - 1));
    uint px = shifted_position(x, ratio_x), py = shifted_position(y, ratio_y);
    int left = int(px / (2 * ratio_x.x)) - 1, top = int(py / (2 * ratio_y.x)) - 1;
    float u = float(px % (2 * ratio_x.x)) / float(2 * ratio_x.x);
    float v = float(py % (2 * ratio_y.x)) / float(2 * ratio_y.x);
    if (mode == BILINEAR) {
        uint x0 = clamp_index(left, FETCH_WIDTH), x1 = clamp_index(left + 1, FETCH_WIDTH);
        uint y0 = clamp_index(top, FETCH_HEIGHT), y1 = clamp_index(top + 1, FETCH_HEIGHT);
        vec4 upper = (1.0 - u) * fetch(slice, x0, y0) + u * fetch(slice, x1, y0);
        vec4 lower = (1.0 - u) * fetch(slice, x0, y1) + u * fetch(slice, x1, y1);
        return (1.0 - v) * upper + v * lower;
    }
    vec4 across = cubic_weights(u), down = cubic_weights(v);
    vec4 sum = vec4(0.0);
    for (int j = 0; j < 4; j++) {
        uint row = clamp_index(top + j - 1, FETCH_HEIGHT);
        vec4 line = vec4(0.0);
        for (int i = 0; i < 4; i++)
            line += across[i]
                * fetch(slice, clamp_index(left + i - 1, FETCH_WIDTH), row);
        sum += down[j] * line;
    }
    return sum;
}

#ifdef WHOLE_LINES
// Bilinear interpolation of the four pixels of a row from `x` on, a multiple of four, by a
// whole ratio that divides four: what lies between which columns is known beforehand, and
// each column is read once.
vec4[4] bilinear_line(uint slice, uint x, uint y)
{
    uint py = shifted_position(y, RATIO_Y);
    int top = int(py / (2 * NUMERATOR)) - 1;
    float v = float(py % (2 * NUMERATOR)) / float(2 * NUMERATOR);
    uint y0 = clamp_index(top, FETCH_HEIGHT), y1 = clamp_index(top + 1, FETCH_HEIGHT);
    int left = int(x / NUMERATOR) - 1;
    vec4 column[6];
    for (int i = 0; i < 6; i++) {
        if (i < 4 / NUMERATOR + 2) {
            uint x0 = clamp_index(left + i, FETCH_WIDTH);
            column[i] = (1.0 - v) * fetch(slice, x0, y0) + v * fetch(slice, x0, y1);
        }
    }
    vec4 line[4];
    for (uint i = 0; i < 4; i++) {
        uint px = 2 * i + 1 + NUMERATOR;
        uint first = px / (2 * NUMERATOR);
        float u = float(px % (2 * NUMERATOR)) / float(2 * NUMERATOR);
        line[i] = (1.0 - u) * column[first] + u * column[first + 1];
    }
    return line;
}
#endif
