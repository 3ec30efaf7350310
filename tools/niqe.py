"""Fit NIQE's pristine parameters on photographs: runtime/upfrost/metrics/niqe.npy.

usage: python tools/niqe.py FOLDER ...

The folders are those of `upfrost-train data` and of the evaluation data's training part
(free-photos, wikipedia-photos). Each photograph is halved first, which takes a camera's
interpolation and JPEG's blocks away; of its blocks those count whose mean deviation
exceeds 0.75 of the sharpest one's, as in the paper.
"""

import argparse
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from upfrost.metrics import niqe
from upfrost.metrics.quality import luma
from upfrost_training.data import picture_files, read_rgb

SHARP = 0.75


def main() -> None:
    """Read the folders, write the parameters."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    found = []
    for path in chain.from_iterable(map(picture_files, parser.parse_args().folders)):
        picture = Image.fromarray(read_rgb(path))
        y = luma(np.asarray(picture.reduce(2)))
        if min(y.shape) < niqe.BLOCK:
            continue
        parameters, deviation = niqe.block_parameters(y)
        found.append(parameters[deviation > SHARP * deviation.max()])
    blocks = np.concatenate(found)
    covariance = np.cov(blocks, rowvar=False)
    numbers = [blocks.mean(axis=0), covariance[np.triu_indices(len(covariance))]]
    target = Path(niqe.__file__).with_name("niqe.npy")
    np.save(target, np.concatenate(numbers).astype("<f4"))
    print(f"{len(blocks)} blocks of {len(found)} photographs: {target}")


if __name__ == "__main__":
    main()
