"""What cannot be is refused before any work; what goes wrong stops only itself."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.graphs import plain_network
from tests.runtime.fakes import UNLUCKY, FakeUpscaler, picture
from upfrost.arrays import Bytes
from upfrost.errors import UsageError
from upfrost.image import batch, images
from upfrost.image.batch import Failure, Job, Options, PictureRecord, Plan, plan_batch
from upfrost.image.images import MAX_PIXELS, Picture, read_picture, write_picture
from upfrost.network.graph import Graph
from upfrost.status import Status

OPTIONS = Options(quality=None, max_pixels=MAX_PIXELS, existing="refuse")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def pairs(
    *inputs: str,
    output: str | None = None,
    wanted: str | None = None,
    recursive: bool = False,
) -> dict[str, str]:
    """Sources and targets of a plan that has no failures."""
    plan = plan_batch(
        inputs,
        output,
        2,
        wanted=images.FORMAT_OF_SUFFIX[wanted] if wanted else None,
        recursive=recursive,
    )
    assert plan.failures == ()
    return {str(job.source): str(job.target) for job in plan.jobs}


@pytest.mark.usefixtures("here")
class TestPlan:
    def test_a_result_stands_beside_its_picture(self) -> None:
        touch("a.png", "d/b.JPG")
        assert pairs("a.png", "d/b.JPG") == {
            "a.png": "a-x2.png",
            "d/b.JPG": "d/b-x2.JPG",
        }

    def test_an_output_folder(self) -> None:
        touch("a.png", "d/b.png")
        assert pairs("a.png", "d/b.png", output="out") == {
            "a.png": "out/a-x2.png",
            "d/b.png": "out/b-x2.png",
        }
        assert not Path("out").exists(), "planning writes nothing"

    @pytest.mark.parametrize("output", ["out.png/", "there.png", "v1.2/"])
    def test_an_output_folder_with_a_dot(self, output: str) -> None:
        touch("a.png")
        Path("there.png").mkdir()
        assert pairs("a.png", output=output) == {
            "a.png": f"{output.rstrip('/')}/a-x2.png"
        }

    def test_an_output_file(self) -> None:
        touch("a.png")
        assert pairs("a.png", output="b.jpg") == {"a.png": "b.jpg"}

    def test_a_format(self) -> None:
        touch("a.png", "b.tiff")
        assert pairs("a.png", "b.tiff", wanted=".jpg") == {
            "a.png": "a-x2.jpg",
            "b.tiff": "b-x2.jpg",
        }

    def test_a_file_without_a_known_suffix_gets_that_of_its_kind(self) -> None:
        Image.new("RGB", (2, 2)).save("photo", "JPEG")
        Image.new("RGB", (2, 2)).save("photo.dat", "WEBP")
        assert pairs("photo", "photo.dat", output="out") == {
            "photo": "out/photo-x2.jpg",
            "photo.dat": "out/photo-x2.webp",
        }

    def test_a_folder_without_hidden_files_and_earlier_results(self) -> None:
        touch("d/b.png", "d/a.jpg", "d/a-x2.jpg", "d/a-x4.png", "d/route-x66.png")
        touch("d/.hidden.png", "d/notes.txt", "d/deep/c.png")
        assert list(pairs("d")) == ["d/a.jpg", "d/b.png", "d/route-x66.png"]

    def test_folders_below_folders(self) -> None:
        touch("d/a.png", "d/deep/a.png", "d/deep/er/b.png", "d/.trash/c.png")
        assert pairs("d", output="d/out", recursive=True) == {
            "d/a.png": "d/out/a-x2.png",
            "d/deep/a.png": "d/out/deep/a-x2.png",
            "d/deep/er/b.png": "d/out/deep/er/b-x2.png",
        }
        touch("d/out/a-x2.png", "d/old/deep/er/b-x4.jpg", "d/old/route-x66.png")
        assert list(pairs("d", output="elsewhere", recursive=True)) == [
            "d/a.png",
            "d/deep/a.png",
            "d/deep/er/b.png",
            "d/old/route-x66.png",
        ]
        touch("d/out/earlier.png")
        assert "d/out/earlier.png" not in pairs("d", output="d/out", recursive=True)

    def test_a_quoted_glob(self) -> None:
        touch("a1.png", "a2.png", "b.png", "d/e/a3.png")
        assert list(pairs("a*.png")) == ["a1.png", "a2.png"]
        assert list(pairs("**/a*.png")) == ["a1.png", "a2.png", "d/e/a3.png"]

    def test_a_name_that_looks_like_a_glob(self) -> None:
        touch("a[1].png", "a1.png")
        assert list(pairs("a[1].png")) == ["a[1].png"]

    def test_the_same_picture_twice_is_one(self) -> None:
        touch("a.png")
        Path("link.png").symlink_to("a.png")
        assert list(pairs("a.png", "./a.png", "*.png", "a.png")) == ["a.png"]

    def test_two_pictures_for_one_file_are_refused(self) -> None:
        touch("a.png", "a.jpg", "d/a.png")
        with pytest.raises(UsageError, match=r"would both become a-x2\.png"):
            pairs("a.png", "a.jpg", wanted=".png")
        with pytest.raises(UsageError, match=r"would both become out/a-x2\.png"):
            pairs("a.png", "d/a.png", output="out")

    def test_several_pictures_for_an_output_file_are_refused(self) -> None:
        touch("d/a.png", "d/b.png")
        with pytest.raises(UsageError, match="names a file, but 2 pictures"):
            pairs("d", output="c.png")

    @pytest.mark.parametrize("output", ["a.png", "./a.png", "link.png"])
    def test_the_picture_itself_is_never_replaced(self, output: str) -> None:
        touch("a.png")
        Path("link.png").symlink_to("a.png")
        with pytest.raises(UsageError, match=r"would replace a\.png"):
            pairs("a.png", output=output)

    def test_nor_is_another_one_of_the_batch(self) -> None:
        touch("a.png", "a-x2.png")
        with pytest.raises(UsageError, match=r"would replace a-x2\.png"):
            pairs("a.png", "a-x2.png")

    def test_a_format_against_the_output_name_is_refused(self) -> None:
        touch("a.png")
        with pytest.raises(UsageError, match="contradict"):
            pairs("a.png", output="b.jpg", wanted=".png")

    def test_an_output_name_of_another_kind_is_refused(self) -> None:
        touch("a.png")
        with pytest.raises(UsageError, match="end it in /"):
            pairs("a.png", output="b.gif")

    @pytest.mark.parametrize(
        ("name", "said"),
        [("", "an empty name"), ("-", r"- \(standard input or output\)")],
    )
    def test_what_names_no_file_is_refused(self, name: str, said: str) -> None:
        """An empty name, of a variable that is not set, is not the folder at hand."""
        touch("a.png")
        with pytest.raises(UsageError, match=f"{said}: name a file or a folder"):
            pairs(name)
        with pytest.raises(UsageError, match=f"{said}: name a file or a folder"):
            pairs("a.png", output=name)

    def test_inputs_without_a_picture_are_failures(self) -> None:
        touch("a.png", "empty/notes.txt")
        plan = plan_batch(["empty", "a.png", "x*.png"], None, 2)
        assert [job.source for job in plan.jobs] == [Path("a.png")]
        assert [failure.source for failure in plan.failures] == ["empty", "x*.png"]
        assert "no PNG, JPEG, WebP, TIFF or BMP picture" in plan.failures[0].reason
        assert plan.failures[1].reason == "x*.png: no file matches"

    def test_what_does_not_exist_is_left_to_reading(self) -> None:
        Path("loop.png").symlink_to("loop.png")
        assert list(pairs("gone.png", "loop.png")) == ["gone.png", "loop.png"]

    def test_a_folder_that_cannot_be_listed_is_a_failure(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        Path("d").mkdir()
        monkeypatch.setattr("os.scandir", refuse)
        plan = plan_batch(["d"], None, 2)
        assert plan.failures == (Failure("d", "d: Permission denied"),)


def job(source: Path) -> Job:
    return Job(source, source.with_name(f"{source.stem}-x2{source.suffix}"))


def run(
    *jobs: Job,
    failures: tuple[Failure, ...] = (),
    options: Options = OPTIONS,
    graph: Graph | None = None,
) -> tuple[int, list[PictureRecord], str]:
    """Run jobs on a fake: the number of failures, the records, what stderr shows."""
    upscaler = FakeUpscaler(graph or plain_network(0))
    records: list[PictureRecord] = []
    stream = io.StringIO()
    failed = batch.run_batch(
        Plan(tuple(jobs), failures),
        upscaler,  # type: ignore[arg-type]
        options,
        Status(stream),
        records.append,
    )
    return failed, records, stream.getvalue()


def test_a_record_says_all_of_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture()[..., 0].astype(np.uint16) * 257).save(path)
    failed, (record,), text = run(job(path))
    assert failed == 0
    expected = {
        "input": str(path),
        "output": str(tmp_path / "a-x2.png"),
        "status": "done",
        "input_size": [9, 6],
        "output_size": [18, 12],
        "format": "PNG",
        "model": plain_network(0).name,
        "scale": 2,
        "device": "Pretender",
        "device_kind": "integrated",
        "precision": "fp16",
        "tiles": 1,
        "overhead": 1.25,
        "tile_size": [64, 48],
        "device_bytes": 12345,
        "streamed": False,
        "notes": ["16 bits a channel reduced to 8"],
    }
    said = json.loads(record.to_json())
    assert {key: said[key] for key in expected} == expected
    assert list(said["seconds"]) == ["read", "upscale", "write"]
    assert all(seconds > 0 for seconds in said["seconds"].values())
    assert "9×6 → 18×12" in text
    assert "a.png: 16 bits a channel reduced to 8" in text
    with Image.open(record.output) as image:
        assert image.mode == "L"


def test_seams_and_tiles_that_overlap_far_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture()))
    monkeypatch.setattr(FakeUpscaler, "seam", 7)
    monkeypatch.setattr(FakeUpscaler, "overhead", 12.34)
    failed, (record,), text = run(job(path))
    assert failed == 0
    assert json.loads(record.to_json())["seam"] == 7
    assert "a.png: tiles with a halo of 3 pixels: at their seams results differ" in text
    assert "up to 7 of 255 levels" in text
    assert "12.3 times the picture is computed; a larger --memory or --tile" in text


def test_the_batch_goes_on_past_a_bad_picture(tmp_path: Path) -> None:
    good, bad, late = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    write_picture(good, Picture(picture()))
    bad.write_text("not a picture")
    write_picture(late, Picture(picture()))
    earlier = Failure("x*.png", "x*.png: no file matches")
    failed, records, text = run(job(good), job(bad), job(late), failures=(earlier,))
    assert failed == 2
    states = {Path(record.input).name: record.status for record in records}
    assert states == {
        "x*.png": "failed",
        "a.png": "done",
        "b.png": "failed",
        "c.png": "done",
    }
    errors = [line for line in text.splitlines() if line.startswith("upfrost: ")]
    assert len(errors) == 3
    assert errors[-1] == f"upfrost: 2 of 4 failed: x*.png, {bad}"


def test_a_lost_device_ends_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "lost")
    jobs = []
    for name, first in (("a.png", 1), ("b.png", UNLUCKY), ("c.png", 1)):
        write_picture(tmp_path / name, Picture(picture(first=first)))
        jobs.append(job(tmp_path / name))
    failed, records, text = run(*jobs)
    assert failed == 2
    assert [record.status for record in records] == ["done", "failed", "failed"]
    assert "the device did not compute" in str(records[1].error)
    assert records[2].error == "not tried, since the device was lost"
    assert text.count("the device did not compute") == 1
    assert not jobs[1].target.exists()
    assert not jobs[2].target.exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("memory", "b.png: the smallest tile does not fit"),
        ("bug", "b.png: RuntimeError: this\\nis a bug (UPFROST_TRACEBACK=1"),
    ],
)
def test_other_faults_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setenv("FAKE_FAULT", fault)
    jobs = []
    for name, first in (("b.png", UNLUCKY), ("c.png", 1)):
        write_picture(tmp_path / name, Picture(picture(first=first)))
        jobs.append(job(tmp_path / name))
    failed, records, text = run(*jobs)
    assert failed == 1
    assert [record.status for record in records] == ["failed", "done"]
    assert reason in text


def test_what_the_library_logs_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAULT", "less")
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture(first=UNLUCKY)))
    failed, (record,), text = run(job(path))
    assert (failed, record.status) == (0, "done")
    assert record.notes == ["going on with less"]
    assert f"upfrost: {path}: going on with less" in text.splitlines()


@pytest.mark.parametrize("existing", ["refuse", "replace", "skip"])
def test_a_result_that_exists(tmp_path: Path, existing: str) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture()))
    target = job(path).target
    target.write_text("earlier")
    options = Options(None, MAX_PIXELS, existing)  # type: ignore[arg-type]
    failed, (record,), _ = run(job(path), options=options)
    assert (failed, record.status) == {
        "refuse": (1, "failed"),
        "replace": (0, "done"),
        "skip": (0, "skipped"),
    }[existing]
    assert (target.read_bytes() == b"earlier") == (existing != "replace")
    assert "upscale" not in record.seconds or existing == "replace"


def test_a_picture_too_large_for_the_format_costs_no_work(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    write_picture(path, Picture(picture(1, 8192)))
    failed, (record,), text = run(job(path))
    assert failed == 1
    assert "upscale" not in record.seconds
    assert "16384×2 pixels are more than WEBP can hold" in text


def test_a_picture_above_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture()))
    failed, _, text = run(job(path), options=Options(None, 53, "refuse"))
    assert failed == 1
    assert "--max-megapixels" in text


def test_a_folder_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_picture(path, Picture(picture()))
    monkeypatch.setattr("os.access", lambda *_: False)
    failed, (record,), _ = run(job(path))
    assert failed == 1
    assert "you may not write into this folder" in str(record.error)
    assert not record.seconds, "nothing was read"


def test_a_network_of_one_channel_takes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    rgb = np.full((8, 8, 3), (30, 200, 90), np.uint8)
    write_picture(path, Picture(rgb))
    graph = plain_network(0, picture_channels=1)
    failed, (record,), _ = run(job(path), graph=graph)
    assert failed == 0
    result: Bytes = read_picture(Path(record.output)).rgb
    assert result.shape == (16, 16, 3)
    assert (result == (30, 200, 90)).all()
