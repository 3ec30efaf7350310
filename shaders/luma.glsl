// The luma of RGB as a network for luma takes it: BT.601, in samples of 12 bits.
const uint STEPS = 16;                              // of a sample, in one of 8 bits
layout(constant_id = 0) const float BLACK = 16.0;   // of 8 bits: its luma, and
layout(constant_id = 1) const float GAIN = 219.0 / 255.0;  // luma for each step of RGB

float luma_of(vec3 rgb)
{
    return dot(rgb, vec3(0.299, 0.587, 0.114));
}
