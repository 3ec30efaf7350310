// The parts that all convolutions share: buffers, push constants, epilogue, store.
//
// LUMA is defined for the last layer that writes samples of luma: the target is then not a
// value. Its base is this dispatch's first row, its stride 16-bit words of a row of the
// result, its size the picture's; the other one is the picture.
//
// Weights: per output slice, input slice and tap four slices, one per input channel.
// Sums: fp32; in half precision over one input slice, and these in fp32.

#include "upfrost.glsl"

// BYTES is defined for the variants that read the picture's samples themselves. They stay
// as they are, which half precision holds, until the sum is multiplied by the unit.
#ifdef BYTES
layout(binding = 0) readonly buffer Given { uint given[]; };
#else
layout(binding = 0) readonly buffer Source { Pack4 source[]; };
#endif
#ifdef LUMA
layout(binding = 1) writeonly buffer Picture { float16_t picture[]; };
#else
layout(binding = 1) writeonly buffer Target { Pack4 target[]; };
#endif
layout(binding = 2) readonly buffer Weights { Pack4 weights[]; };
// Per output slice: biases, slopes, the first input slice (.x).
layout(binding = 3) readonly buffer Parameters { vec4 parameters[]; };
#ifdef LUMA
layout(binding = 4) readonly buffer Given { uint given[]; };
#else
layout(binding = 4) readonly buffer Others { Pack4 others[]; };
#endif

layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint other_base;
    // Layers share buffers: where this one's part begins.
    uint weights_base;
    uint parameters_base;
#ifdef BYTES
    float unit;  // what one step of a sample stands for
#endif
#ifdef LEADS
    // Columns and rows of the first blocks that are before the target's first pixel.
    uint lead_x;
    uint lead_y;
#endif
#ifdef LUMA
    uint carries;  // whether this is the last dispatch, which the token is left to
#endif
} push;

#ifdef BYTES
layout(constant_id = 0) const uint PIXEL = 3;
#define IN_SLICES 1
#define EACH_INPUT_SLICE const uint input_slice = 0;
#define LANES SAMPLES
#define UNIT push.unit
#include "bytes.glsl"
#define LOAD(element) Pack4(given_pixel(element))
#else
layout(constant_id = 0) const uint IN_SLICES = 1;  // that one output slice reads
#define EACH_INPUT_SLICE \
    for (uint input_slice = 0; input_slice < IN_SLICES; input_slice++)
#define LANES 4
#define UNIT 1.0
#define LOAD(element) source[element]
#endif
#ifndef LUMA
#include "epilogue.glsl"
#endif

// The register tile of an invocation; its output slice is gl_WorkGroupID.x. Workgroups of one
// place's output slices follow each other, since they all read the same input, and little of
// it fits into a GPU's cache.
#define FIRST_X ((gl_WorkGroupID.y * GROUP_X + gl_LocalInvocationID.x) * TILE_W)
#define FIRST_Y ((gl_WorkGroupID.z * GROUP_Y + gl_LocalInvocationID.y) * TILE_H)

// The pixels of the register tile. Loops of known bounds and small bodies are unrolled
// by every compiler; an array that a loop's variable indexes would else go to memory.
#define PIXELS \
    for (uint j = 0; j < TILE_H; j++) \
        for (uint i = 0; i < TILE_W; i++)

#ifndef LUMA
// Bias and epilogue, then the store. Pixels of the margin become zeros.
void store(vec4 sum, uint slice, uint x, uint y)
{
    uint element = ELEMENT(target, slice, x, y);
    uint parameter = push.parameters_base + 3 * slice;
    vec4 value = sum * UNIT + parameters[parameter];
    vec4 other = vec4(0.0);
    if (OTHER != 0)
        other = vec4(others[element - push.target_base + push.other_base]);
    vec4 slope = vec4(0.0);
    if (ACTIVATION == RECTIFY)
        slope = parameters[parameter + 1];
    value = finish(value, other, slope);
    target[element] = Pack4(inside_or_zero(value, INSIDE(target, x, y)));
}
#endif
