// What follows a kernel's value: a second value that is added or multiplied, an
// activation, a clamp; all in fp32.

layout(constant_id = 1) const uint OTHER = 0;       // what is done with the second value
layout(constant_id = 2) const uint ACTIVATION = 0;
layout(constant_id = 3) const float LOW = -3.0e38;  // clamp, last
layout(constant_id = 4) const float HIGH = 3.0e38;

const uint ADD_BEFORE = 1;  // the activation
const uint ADD_AFTER = 2;
const uint MULTIPLY_BEFORE = 3;
const uint MULTIPLY_AFTER = 4;

const uint RECTIFY = 1;  // x > 0 ? x : slope * x
const uint ABS = 2;
const uint ELU = 3;
const uint EXP = 4;
const uint GELU = 5;
const uint GELU_TANH = 6;
const uint HARDSIGMOID = 7;
const uint HARDSWISH = 8;
const uint MISH = 9;
const uint RECIPROCAL = 10;
const uint RSQRT = 11;
const uint SIGMOID = 12;
const uint SILU = 13;
const uint SOFTPLUS = 14;
const uint SQRT = 15;
const uint TANH = 16;

// 1 / (1 + e^-x); the bound keeps the power finite, and is too far out to be seen.
vec4 sigmoid(vec4 x)
{
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

// x · (1 + erf(x / √2)) / 2. The error function by Abramowitz and Stegun's 7.1.26,
// which is off by 1.5e-7 at most.
vec4 gelu(vec4 x)
{
    vec4 z = abs(x) * 0.70710678;
    vec4 t = 1.0 / (1.0 + 0.3275911 * z);
    vec4 tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741
        + t * (-1.453152027 + t * 1.061405429)))) * exp(-z * z);
    return max(x, 0.0) - 0.5 * abs(x) * tail;
}

vec4 activate(vec4 x, vec4 slope)
{
    vec4 result = x;
    if (ACTIVATION == RECTIFY)  // not by min and max, which make 0 of what is no number
        result = mix(slope * x, x, greaterThan(x, vec4(0.0)));
    if (ACTIVATION == ABS)
        result = abs(x);
    if (ACTIVATION == ELU)
        result = max(x, 0.0) + (exp(min(x, 0.0)) - 1.0);
    if (ACTIVATION == EXP)
        result = exp(x);
    if (ACTIVATION == GELU)
        result = gelu(x);
    if (ACTIVATION == GELU_TANH)
        result = x * sigmoid(1.59576912 * x * (1.0 + 0.044715 * x * x));
    if (ACTIVATION == HARDSIGMOID)
        result = clamp(x / 6.0 + 0.5, 0.0, 1.0);
    if (ACTIVATION == HARDSWISH)
        result = x * clamp(x / 6.0 + 0.5, 0.0, 1.0);
    if (ACTIVATION == MISH) {
        // tanh(log(1 + n)). From 20 on it is 1, and n² must stay finite.
        vec4 n = exp(min(x, 20.0));
        result = x * (n * n + 2.0 * n) / (n * n + 2.0 * n + 2.0);
    }
    if (ACTIVATION == RECIPROCAL)
        result = 1.0 / x;
    if (ACTIVATION == RSQRT)
        result = inversesqrt(x);
    if (ACTIVATION == SIGMOID)
        result = sigmoid(x);
    if (ACTIVATION == SILU)
        result = x * sigmoid(x);
    if (ACTIVATION == SOFTPLUS)
        result = max(x, 0.0) + log(1.0 + exp(-abs(x)));
    if (ACTIVATION == SQRT)
        result = sqrt(x);
    if (ACTIVATION == TANH)
        result = 2.0 * sigmoid(2.0 * x) - 1.0;
    return result;
}

// `slope` is the rectifier's. A lane beyond the last channel is 0 here and must stay
// finite, since 0, its weight in whatever follows, times infinity is no number.
vec4 finish(vec4 value, vec4 other, vec4 slope)
{
    if (OTHER == ADD_BEFORE)
        value += other;
    if (OTHER == MULTIPLY_BEFORE)
        value *= other;
    value = activate(value, slope);
    if (OTHER == ADD_AFTER)
        value += other;
    if (OTHER == MULTIPLY_AFTER)
        value *= other;
    return clamp(value, LOW, HIGH);
}
