"""Degradations do what they say, and only that."""

import numpy as np
import pytest

from upfrost.metrics.quality import detail
from upfrost_training.degradations import (
    CODECS,
    STEPS,
    STRENGTHS,
    Degradation,
    blur,
    compress_frames,
    degrade,
    gauss,
    grain,
    jpeg,
    motion,
    ordered,
    poisson,
    sharpen,
)
from upfrost_training.resize import KERNELS, Picture, imresize, shrink


def picture(seed: int, height: int = 48, width: int = 64) -> Picture:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(256, size=(6, 8, 3), dtype=np.uint8)
    result: Picture = imresize(coarse, height, width)
    return result


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_bicubic_alone_is_matlab_s() -> None:
    hr = picture(0)
    result = degrade(hr[None], 2, (Degradation("bicubic"),), rng())[0]
    np.testing.assert_array_equal(result, shrink(hr, 2))


def test_every_degradation_has_its_range_of_strengths() -> None:
    assert STRENGTHS.keys() == {*STEPS, *CODECS}


@pytest.mark.parametrize("kind", STEPS)
def test_steps_take_all_strengths_of_their_range(kind: str) -> None:
    hr = picture(2)
    for strength in STRENGTHS[kind]:
        assert STEPS[kind](hr, strength, rng()).shape == hr.shape


@pytest.mark.parametrize("kind", STEPS)
def test_steps_keep_shape_and_change_something(kind: str) -> None:
    strength = {"gauss": 8.0, "grain": 8.0, "motion": 4.0, "jpeg": 40.0}.get(kind, 1.0)
    hr = picture(1)
    before = hr.copy()
    result = STEPS[kind](hr, strength, rng())
    assert result.shape == hr.shape
    assert result.dtype == np.uint8
    assert not np.array_equal(result, hr)
    np.testing.assert_array_equal(hr, before)


def test_noise_has_the_stated_size() -> None:
    grey = np.full((200, 200, 3), 100, np.uint8)
    # 120,000 samples: the deviation's own error is 0.2 %; rounding adds 1/12.
    assert gauss(grey, 5.0, rng()).std() == pytest.approx(5.0, rel=0.02)
    assert poisson(grey, 1.0, rng()).std() == pytest.approx(10.0, rel=0.02)
    assert poisson(grey, 4.0, rng()).std() == pytest.approx(5.0, rel=0.02)


def test_blur_is_a_gaussian_of_the_stated_width() -> None:
    impulse = np.zeros((41, 41, 3), np.uint8)
    impulse[:, 20] = 255
    line = blur(impulse, 2.0, rng())[20, :, 0].astype(float)
    variance = np.sum(line * (np.arange(41) - 20.0) ** 2) / line.sum()
    # The tails beyond three sigma are cut, and the rest rounded to bytes.
    assert variance**0.5 == pytest.approx(2.0, rel=0.03)
    flat = np.full((5, 5, 3), 9, np.uint8)
    np.testing.assert_array_equal(blur(flat, 2.0, rng()), flat)
    np.testing.assert_array_equal(blur(picture(0), 0.0, rng()), picture(0))


def test_stronger_compression_loses_more() -> None:
    hr = gauss(picture(0), 20.0, rng())

    def error(quality: float) -> float:
        return float(np.abs(jpeg(hr, quality, rng()).astype(int) - hr).mean())

    assert error(20) > error(60) > error(95)


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_video_codecs_keep_odd_sizes_and_lose_more_at_lower_rates(codec: str) -> None:
    pytest.importorskip("imageio_ffmpeg")
    frames = np.stack([picture(seed, 45, 63) for seed in range(2)])
    errors = []
    for rate in (15.0, 40.0):
        result = compress_frames(frames, codec, rate)
        assert result.shape == frames.shape
        errors.append(np.abs(result.astype(int) - frames).mean())
    assert errors[0] < errors[1]


def test_a_run_of_frames_is_one_piece_of_video() -> None:
    pytest.importorskip("imageio_ffmpeg")
    frames = np.stack([picture(0)] * 3)
    steps = (Degradation("area"), Degradation("h264", (35.0, 35.0)))
    run = degrade(frames, 2, steps, rng())
    assert run.shape == (3, 24, 32, 3)
    single = degrade(frames[:1], 2, steps, rng())
    # A still scene's later frames are predicted from the first, which gets more bits.
    assert not np.array_equal(run[0], single[0]) or not np.array_equal(run[0], run[2])


def test_motion_smears_along_one_direction() -> None:
    point = np.zeros((33, 33, 3), np.uint8)
    point[16, 16] = 255
    for seed in range(4):
        smeared = motion(point, 6.0, np.random.default_rng(seed))[..., 0]
        ys, xs = np.nonzero(smeared > 8)
        # Its spread across the path is a bilinear pixel's; along it, six pixels'.
        spread = np.linalg.eigvalsh(np.cov(np.stack([ys, xs])))
        assert spread[1] > 4 * spread[0]
        # Bytes are rounded: at most half a level in each of the pixels it fell on.
        assert abs(int(smeared.sum()) - 255) <= smeared.size


def test_sharpening_steepens_and_blurring_flattens() -> None:
    noise = rng().integers(64, 192, size=(48, 64, 3), dtype=np.uint8)
    soft = blur(noise, 1.0, rng())
    assert detail(sharpen(soft, 1.0, rng()), soft) > 1.5
    assert detail(blur(soft, 1.0, rng()), soft) < 0.5


def test_grain_has_its_strength_and_neighbours_alike() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    noise = grain(flat, 6.0, rng()).astype(float) - 128.0
    # Rounding to bytes adds a variance of 1/12.
    assert noise.std() == pytest.approx(6.0, rel=0.02)
    alike = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
    # White noise of 12,000 values has 0 +- 0.01.
    assert alike > 0.1


def test_shuffled_neighbours_change_places_and_others_stay() -> None:
    steps = (
        Degradation("bicubic"),
        Degradation("jpeg", (20.0, 20.0), shuffled=True),
        Degradation("sharpen", (1.0, 1.0), shuffled=True),
        Degradation("blur", (0.5, 0.5)),
    )
    orders = {
        tuple(step.kind for step in ordered(steps, np.random.default_rng(seed)))
        for seed in range(20)
    }
    # Twenty seeds give one order alone once in half a million draws; these are fixed.
    assert orders == {
        ("bicubic", "jpeg", "sharpen", "blur"),
        ("bicubic", "sharpen", "jpeg", "blur"),
    }


def test_a_kernel_is_drawn() -> None:
    hr = picture(0)
    results = [
        degrade(hr[None], 2, (Degradation("resample"),), np.random.default_rng(seed))
        for seed in range(20)
    ]
    by_kernel = [shrink(hr, 2, kernel).tobytes() for kernel in KERNELS]
    assert {result[0].tobytes() for result in results} == set(by_kernel)


def test_a_share_of_the_pictures_is_degraded() -> None:
    steps = (Degradation("bicubic"), Degradation("gauss", (20.0, 20.0), share=0.5))
    hr, plain = picture(0), shrink(picture(0), 2)
    numbers = np.random.default_rng(1)
    changed = [
        not np.array_equal(degrade(hr[None], 2, steps, numbers)[0], plain)
        for _ in range(60)
    ]
    # Binomial(60, 1/2) leaves 15 to 45 once in 20,000 seeds; this one is fixed.
    assert 15 < sum(changed) < 45


def test_the_same_seed_gives_the_same_picture() -> None:
    steps = (Degradation("gauss", (1.0, 9.0)), Degradation("area"))
    first, second = (degrade(picture(0)[None], 2, steps, rng()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Degradation("fog"), "unknown degradation 'fog'"),
        (lambda: Degradation("jpeg", (90.0, 40.0)), "strength"),
        (lambda: Degradation("jpeg"), r"jpeg: .* from 1 to 95, not \[0, 0\]"),
        (lambda: Degradation("h264", (18.0, 52.0)), "h264: .* from 0 to 51"),
        (lambda: Degradation("gauss", (0.0, float("inf"))), r"not \[0, inf\]"),
        (lambda: Degradation("blur", (float("nan"), 1.0)), r"not \[nan, 1\]"),
        (lambda: Degradation("area", (1.0, 2.0)), "strength must be left out"),
        (lambda: Degradation("blur", (0.0, 1.0), 2.0), "share"),
        (lambda: Degradation("area", share=0.5), "every picture is scaled"),
        (lambda: degrade(picture(0)[None], 2, (), rng()), "0 degradations scale"),
    ],
)
def test_bad_settings_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_video_codec_leaves_brightness_as_it_was(codec: str) -> None:
    frames = np.stack([picture(7), picture(8)])
    result = compress_frames(frames, codec, 4.0)
    # Rounding to samples moves the mean by hundredths; inexact conversions by one.
    assert abs(result.mean() - frames.mean()) < 0.2
