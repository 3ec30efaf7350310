"""Every kernel that a device may use has a probe, and a wrong one is told by name."""

from __future__ import annotations

import pytest

from upfrost.check import kernels
from upfrost.check.jobs import OPENING, Result
from upfrost.check.probes import probes
from upfrost.gpu.dispatches import Precision
from upfrost.gpu.families import CPU, MALI, VALHALL, VARIANTS, Family


def shaders(family: Family, precision: Precision) -> set[str]:
    """Those that the family's devices use, by the list of all that are compiled."""
    used = {
        kernel.name
        for kernel in family.kernels
        if precision in kernel.precisions and kernel != family.products
    }
    for kernel in family.conv3x3:
        if kernel.source == "winograd" and precision in kernel.precisions:
            used.add(family.products.name)
            used |= {
                f"winograd_{part}_{kernel.tile.label}" for part in ("input", "output")
            }
    tiled = {f"{name}{end}-{precision}" for name in used for end in ("", "_bytes")}
    plain = {
        name
        for name, variant in VARIANTS.items()
        if name.endswith(precision) and "TILE_W" not in variant.defines
    }
    return (tiled & VARIANTS.keys()) | plain | {"clear", "chroma"}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("family", [CPU, MALI, VALHALL], ids=lambda each: each.name)
def test_every_kernel_has_a_probe(family: Family, precision: Precision) -> None:
    probed = {
        kernels.shader(kernel)
        for probe in probes(family, precision)
        for kernel in kernels.about(kernels.plan_of(probe, precision))["kernels"]
    }
    missing = shaders(family, precision) - probed
    assert not missing


def result(
    kernels_: str, problem: str = "", before: str = "", **facts: object
) -> Result:
    """A probe's result: its kernels, of which those `before` made the value."""
    about = {
        "precision": "fp32",
        "kernels": kernels_.split(),
        "before": before.split(),
    }
    if problem:
        return Result(failure=problem, about=about)
    return Result(facts={"error": 0.0, "levels": 0} | facts, about=about)


def wrong(**results: Result) -> list[str]:
    """What is said to be wrong, up to the first colon."""
    found = kernels.judge(results).wrong
    return [each.text.partition(":")[0] for each in found]


def test_nothing_is_wrong() -> None:
    assert wrong(a=result("lift() pack()"), b=result("pad() pack()")) == []


def test_the_one_that_explains_most_is_named() -> None:
    """Not those that were right in another probe."""
    assert wrong(
        a=result("lift() wide() pack()", error=0.5),
        b=result("lift() pad() pack()", error=0.5),
        c=result("wide() pad() pack()"),
    ) == ["lift is wrong"]


def test_a_kernel_can_be_wrong_as_it_is_specialized_here() -> None:
    assert wrong(
        a=result("lift() pack(1)"),
        b=result("lift() pack(2)", levels=200, before="lift()"),
    ) == ["pack is wrong"]


def test_several_that_are_always_together_are_named_together() -> None:
    assert wrong(
        a=result("lift() input() product()", "the driver ended the process (SIGSEGV)"),
        b=result("lift()"),
    ) == ["input or product is wrong"]


def test_a_failure_that_names_a_kernel_is_believed() -> None:
    assert wrong(
        a=result("lift() pack()", "it failed (pack: vkCreateComputePipelines)")
    ) == ["pack is wrong"]


def test_what_is_no_number_is_wrong() -> None:
    assert wrong(a=result("lift()", error=1e9)) == ["lift is wrong"]


def test_what_was_done_before_the_device_could_not_be_opened_counts() -> None:
    closed = {OPENING: Result(failure="the device was lost")}
    results = {"a": result("lift()", error=0.5), "b": result("pad()")} | closed
    section = kernels.judge(results)
    assert [each.text.partition(":")[0] for each in section.wrong] == [
        "the device was lost",
        "lift is wrong",
    ]
    assert section.findings[-1].state == "good"
