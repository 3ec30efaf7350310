// The parts that all convolutions share: buffers, push constants, epilogue, store.
//
// Weights: per output quad, input quad and tap four quads, one per input channel.
// Sums: fp32; in half precision over one input quad, and these in fp32.

#include "upfrost.glsl"

// BYTES is defined for the variants that read the picture's bytes themselves. They stay
// 0 to 255, which half precision holds, until the sum is multiplied by the unit.
#ifdef BYTES
layout(binding = 0) readonly buffer Given { uint given[]; };
#else
layout(binding = 0) readonly buffer Source { Quad source[]; };
#endif
layout(binding = 1) writeonly buffer Target { Quad target[]; };
layout(binding = 2) readonly buffer Weights { Quad weights[]; };
// Per output quad: biases, slopes, the first input quad (.x).
layout(binding = 3) readonly buffer Parameters { vec4 parameters[]; };
layout(binding = 4) readonly buffer Others { Quad others[]; };

layout(push_constant) uniform Push
{
    LAYOUT(source);
    LAYOUT(target);
    uint other_base;
    // Layers share buffers: where this one's part begins.
    uint weights_base;
    uint parameters_base;
#ifdef BYTES
    float unit;  // what one step of a byte stands for
#endif
} push;

#ifdef BYTES
layout(constant_id = 0) const uint CHANNELS = 3;
#define IN_QUADS 1
#define EACH_INPUT_QUAD const uint input_quad = 0;
#define UNIT push.unit
#include "bytes.glsl"
#define LOAD(element) Quad(given_pixel(element))
#else
layout(constant_id = 0) const uint IN_QUADS = 1;  // that one output quad reads
#define EACH_INPUT_QUAD \
    for (uint input_quad = 0; input_quad < IN_QUADS; input_quad++)
#define CHANNELS 4
#define UNIT 1.0
#define LOAD(element) source[element]
#endif
#include "epilogue.glsl"

// The register tile of an invocation; its output quad is gl_WorkGroupID.x. Workgroups of one
// place's output quads follow each other, since they all read the same input, and little of
// it fits into a GPU's cache.
#define FIRST_X ((gl_WorkGroupID.y * GROUP_X + gl_LocalInvocationID.x) * TILE_W)
#define FIRST_Y ((gl_WorkGroupID.z * GROUP_Y + gl_LocalInvocationID.y) * TILE_H)

// The pixels of the register tile. Loops of known bounds and small bodies are unrolled
// by every compiler; an array that a loop's variable indexes would else go to memory.
#define PIXELS \
    for (uint j = 0; j < TILE_H; j++) \
        for (uint i = 0; i < TILE_W; i++)

// Bias and epilogue, then the store. Pixels of the margin become zeros.
void store(vec4 sum, uint quad, uint x, uint y)
{
    uint element = ELEMENT(target, quad, x, y);
    uint parameter = push.parameters_base + 3 * quad;
    vec4 value = sum * UNIT + parameters[parameter];
    vec4 other = vec4(0.0);
    if (OTHER != 0)
        other = vec4(others[element - push.target_base + push.other_base]);
    vec4 slope = vec4(0.0);
    if (ACTIVATION == RECTIFY)
        slope = parameters[parameter + 1];
    value = finish(value, other, slope);
    target[element] = Quad(inside_or_zero(value, INSIDE(target, x, y)));
}
