"""The table of the models' quality: rows that stay when others are measured anew."""

from benchmarks.quality import merged
from benchmarks.report import Row


def test_rows_of_other_models_stay_and_those_of_retired_ones_go() -> None:
    def rows(*names: str) -> list[Row]:
        return [{"": name, "scale": scale} for scale in ("×2", "×4") for name in names]

    old = rows("nearest", "Lanczos", "bicubic", "**b**", "**gone**")
    new: list[Row] = [
        {"": "**a**", "scale": "×2", "new": "yes"},
        {"": "Lanczos", "scale": "×2", "new": "yes"},
    ]
    found = merged(new, old, {"a", "b"})
    assert [(row["scale"], row[""], "new" in row) for row in found] == [
        ("×2", "nearest", False),
        ("×2", "Lanczos", True),
        ("×2", "bicubic", False),
        ("×2", "**a**", True),
        ("×2", "**b**", False),
        ("×4", "nearest", False),
        ("×4", "Lanczos", False),
        ("×4", "bicubic", False),
        ("×4", "**b**", False),
    ]
