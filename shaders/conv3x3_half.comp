#version 450
// 3×3 convolution of few channels, stride 1, one zero of padding, in half precision: a
// column of twelve pixels of one output slice an invocation. What follows the sum is in half
// precision, too, where it is a bias and a rectifier. The grid covers the whole plane.
#include "half_sums.glsl"

#define PLAIN \
    (OTHER == 0 && ACTIVATION <= RECTIFY && LOW < -1.0e38 && HIGH > 1.0e38)

#ifdef BYTES
#define BIASED(sum) Pack4(vec4(sum) * UNIT + parameters[parameter])
#else
#define BIASED(sum) (sum + bias)
#endif

#define FINISH(j) \
    if (PLAIN) { \
        Pack4 value = BIASED(sum[j]); \
        if (ACTIVATION == RECTIFY) \
            value += beyond * min(value, Pack4(0.0)); \
        target[element] = value; \
        element += push.target_stride; \
    } else { \
        store(vec4(sum[j]), slice, x, y + j); \
    }

void main()
{
    uint x = FIRST_X, y = FIRST_Y, slice = gl_WorkGroupID.x;
    uint corner = ELEMENT(source, 0, x, y) - push.source_stride - 1;
    Pack4 sum[TILE_H] = half_sums(slice, corner);
    uint parameter = push.parameters_base + 3 * slice;
    Pack4 bias = Pack4(parameters[parameter]);
    // What the slope adds below zero. Of the slope in half precision: the compiler pairs
    // products by a vector that it has converted, not by what was computed before.
    Pack4 beyond = Pack4(parameters[parameter + 1]) - Pack4(1.0);
    uint element = ELEMENT(target, slice, x, y);
    FINISH(0) FINISH(1) FINISH(2) FINISH(3) FINISH(4) FINISH(5)
    FINISH(6) FINISH(7) FINISH(8) FINISH(9) FINISH(10) FINISH(11)
    if (PLAIN) {
        // The margin's zeros, the last pixels of a column, are written afterwards: nearly
        // every column has none, and all would pay for a choice. How many there are is
        // found here, since before the sums it would be one register too many.
        int rows = x < push.target_width ? int(push.target_height) - int(y) : 0;
        for (int j = max(rows, 0); j < TILE_H; j++)
            target[ELEMENT(target, slice, x, y + j)] = Pack4(0.0);
    }
}
