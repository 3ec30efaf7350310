// Weights of the four samples around a point, `t` after the second: Keys' cubic
// convolution (1981), whose constant the including file defines as CUBIC_A.
vec4 cubic_weights(float t)
{
    const float a = CUBIC_A;
    vec4 d = vec4(1.0 + t, t, 1.0 - t, 2.0 - t);
    vec4 near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    vec4 far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    return vec4(far.x, near.y, near.z, far.w);
}
